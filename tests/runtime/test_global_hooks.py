"""Tests hooks on all modules: they run inside graphs, and never around what fxcache calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from tests.engines import num_captures
from tests.plain import dit, dit_inputs

Register = Callable[..., Any]


def scaled_inputs(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(1.01 * a if isinstance(a, Tensor) else a for a in args)


def scaled_result(_: nn.Module, __: Any, result: Any) -> Any:
    return 1.01 * result if isinstance(result, Tensor) else None


def scaled_results(_: nn.Module, __: Any, result: Any) -> Any:
    """Change the results of what fxcache and torch.export call: they return sequences."""
    if isinstance(result, tuple | list):
        return tuple(1.01 * r if isinstance(r, Tensor) else r for r in result)
    return None


HOOKS = {
    "inputs": (register_module_forward_pre_hook, scaled_inputs),
    "result": (register_module_forward_hook, scaled_result),
    "results": (register_module_forward_hook, scaled_results),
}


@contextmanager
def hooked(register: Register, hook: Callable[..., Any]) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("register", "hook"), HOOKS.values(), ids=HOOKS)
@torch.no_grad()
def test_hooks_on_all_modules_are_noticed(register, hook, compiled):
    model, plain, inputs = fxcache.optimize(dit(), fxcache.Uniform(1)), dit(), dit_inputs()
    if compiled:
        model.compile(backend="eager")

    def assert_exact(value: float) -> None:
        timestep = torch.tensor(value)
        assert torch.equal(model(timestep=timestep, **inputs), plain(timestep=timestep, **inputs))

    for value in (900.0, 700.0):
        assert_exact(value)
        with hooked(register, hook):
            assert_exact(value - 100)
    assert num_captures(model) == 2


@torch.no_grad()
def test_hooks_that_observe_cost_no_capture_at_each_call():
    seen: list[str] = []
    model = fxcache.optimize(dit(), fxcache.Uniform(1))
    with hooked(register_module_forward_hook, lambda module, *_: seen.append(str(type(module)))):
        for value in (900.0, 800.0, 700.0):
            model(timestep=torch.tensor(value), **dit_inputs())
    assert num_captures(model) == 1
    assert sum("DiT" in name for name in seen) == 3  # once around each call


@torch.no_grad()
def test_hooks_of_torch_are_not_the_models():
    model = fxcache.optimize(dit(), fxcache.Uniform(1))
    model(timestep=torch.tensor(900.0), **dit_inputs())
    with FlopCounterMode(display=False) as counter:
        model(timestep=torch.tensor(800.0), **dit_inputs())
    assert num_captures(model) == 1
    assert counter.get_total_flops()


@torch.no_grad()
def test_a_capture_leaves_the_hooks_as_they_were():
    hooks = torch.nn.modules.module._global_forward_hooks
    with hooked(register_module_forward_hook, scaled_result):
        before = dict(hooks)
        fxcache.optimize(dit())(timestep=torch.tensor(900.0), **dit_inputs())
        assert dict(hooks) == before
