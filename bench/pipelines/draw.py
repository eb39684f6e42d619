"""Calls a pipeline with the same noise each time, and gives its results as tensors."""

import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.pipelines.recipe import PipelineRecipe


@torch.no_grad()
def draw(pipe: Any, recipe: PipelineRecipe) -> list[Tensor]:
    """Call ``pipe`` as ``recipe`` says, and return all tensors, arrays and images of the result.

    Raises:
        ValueError: A value is not finite, or there is none.
    """
    seed()
    usual = {
        "generator": torch.Generator().manual_seed(0),
        "num_inference_steps": recipe.steps,
        "output_type": "latent",
        "return_dict": False,
    }
    taken = inspect.signature(type(pipe).__call__).parameters
    options = {name: value for name, value in usual.items() if name in taken}
    return finite(recipe.kind, pipe(**(options | dict(recipe.call()))))


def seed() -> None:
    """Seed every source of random numbers."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def finite(name: str, result: Any) -> list[Tensor]:
    """Return all tensors, arrays and images of a result.

    Raises:
        ValueError: A value is not finite, or there is none.
    """
    results = list(tensors(result))
    if not results:
        raise ValueError(f"{name} returned no tensor, array or image")
    if not all(torch.isfinite(result).all() for result in results):
        raise ValueError(f"{name} returned values that are not finite")
    return results


def tensors(result: Any) -> Iterator[Tensor]:
    """Yield the tensors, arrays and images in nested containers and outputs of diffusers."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, np.ndarray | Image.Image):
        yield torch.from_numpy(np.array(result))
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from tensors(value)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from tensors(value)


def same(results: list[Tensor], others: list[Tensor]) -> bool:
    """Return whether two results are equal bit for bit."""
    return len(results) == len(others) and all(map(torch.equal, results, others))


def count_calls(
    drawing: Callable[[], list[Tensor]], modules: Mapping[str, nn.Module]
) -> tuple[list[Tensor], dict[str, int]]:
    """Draw once. Return the results, and how often each of ``modules`` was called.

    A call of ``forward`` counts, too: some models guide themselves in a method of their own.
    """
    calls = dict.fromkeys(modules, 0)
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(counting(module, name, calls))
        return drawing(), calls


@contextmanager
def counting(module: nn.Module, name: str, calls: dict[str, int]) -> Iterator[None]:
    """Add the calls of ``module`` to ``calls[name]``."""
    forward, own = module.forward, vars(module).get("forward")

    @functools.wraps(forward)
    def counted(*arguments: Any, **options: Any) -> Any:
        calls[name] += 1
        return forward(*arguments, **options)

    vars(module)["forward"] = counted
    try:
        yield
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own
