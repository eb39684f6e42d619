"""Calls a pipeline with the same noise each time, and gives its results as tensors."""

import inspect
import random
from collections.abc import Iterator, Mapping
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
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    usual = {
        "generator": torch.Generator().manual_seed(0),
        "num_inference_steps": recipe.steps,
        "output_type": "latent",
        "return_dict": False,
    }
    taken = inspect.signature(type(pipe).__call__).parameters
    options = {name: value for name, value in usual.items() if name in taken}
    results = list(tensors(pipe(**(options | dict(recipe.call())))))
    if not results:
        raise ValueError(f"{recipe.kind} returned no tensor, array or image")
    if not all(torch.isfinite(result).all() for result in results):
        raise ValueError(f"{recipe.kind} returned values that are not finite")
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
    pipe: Any, recipe: PipelineRecipe, modules: Mapping[str, nn.Module]
) -> tuple[list[Tensor], dict[str, int]]:
    """Draw once. Return the results, and how often each of ``modules`` was called."""
    calls = dict.fromkeys(modules, 0)

    def counting(name: str) -> Any:
        def count(*_: Any) -> None:
            calls[name] += 1

        return count

    hooks = [m.register_forward_pre_hook(counting(name)) for name, m in modules.items()]
    try:
        return draw(pipe, recipe), calls
    finally:
        for hook in hooks:
            hook.remove()
