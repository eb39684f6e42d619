"""Tests hooks that change Python objects: the original model runs the calls that run them."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

import fxcache
from tests.loops import refreshes
from tests.plain import dit
from tests.runtime.sampled import CHANGES, STEPS, assert_same, sampled

GLOBAL: dict[str, Any] = {}
LAST: Any = None


def add_hooks(model: Any, kind: str) -> Any:
    """Register a hook of one kind, and return the object that it fills."""
    into, count = [], 0

    class Recorder:
        def hook(self, module: nn.Module, args: Any, output: Tensor) -> None:
            into.append(output.abs())

    def counts(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return output * count

    def fills_global(module: nn.Module, args: Any, output: Tensor) -> None:
        GLOBAL["last"] = output

    def sets_global(module: nn.Module, args: Any, output: Tensor) -> None:
        global LAST
        LAST = output

    def passes(kept: list[Tensor], module: nn.Module, args: Any, output: Tensor) -> None:
        kept.append(output)

    hooks: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "closure": (lambda _m, _a, output: into.append(output), lambda _: into),
        "method": (Recorder().hook, lambda _: into),
        "nonlocal": (counts, lambda _: count),
        "global": (fills_global, lambda _: GLOBAL),
        "global name": (sets_global, lambda _: LAST),
        "partial": (functools.partial(passes, into), lambda _: into),
    }
    hook, held = hooks[kind]
    handle = model.layers[0].register_forward_hook(hook)
    return handle, held


HOOKS = ["closure", "method", "nonlocal", "global", "global name", "partial"]


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_collect_what_they_would_collect(kind: str) -> None:
    found = []
    for optimized in (True, False):
        GLOBAL.clear()
        globals()["LAST"] = None
        model = dit(2)
        _, held = add_hooks(model, kind)
        if optimized:
            fxcache.optimize(model, fxcache.Uniform(3))
            with pytest.warns(fxcache.FxcacheWarning, match=CHANGES):
                found.append(sampled(model, held))
        else:
            found.append(sampled(model, held))
    assert_same(*found)


@pytest.mark.filterwarnings(f"ignore:.*{CHANGES}")
def test_calls_reuse_again_without_the_hook() -> None:
    model = fxcache.optimize(dit(2), fxcache.Uniform(3))
    handle, held = add_hooks(model, "closure")
    sampled(model)
    assert len(held(model)) == STEPS
    handle.remove()
    sampled(model)
    assert len(held(model)) == STEPS
    assert refreshes(model) == [[0, 3]]
