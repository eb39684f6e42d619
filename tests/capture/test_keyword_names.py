"""Tests that arguments may have any name, also names of torch.export's own parameters."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxcache.rewrite.graph_module import graph_module
from tests.capture.prepared import assert_same_bits, captured

NAMES = [
    *("mod", "module", "self_", "graph", "fn", "func", "f", "root", "args", "kwargs", "arguments"),
    *("forward", "proxies", "stack", "mode", "tracer", "m", "original", "x", "input", "model"),
]


def layer_class(name: str) -> type[nn.Module]:
    """Return a layer whose ``forward`` has a second parameter ``name``, also in an inner module."""
    source = f"""
class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
    def forward(self, hidden, *, {name}):
        return torch.tanh(self.linear(hidden) + {name})

class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
    def forward(self, hidden, {name}, **others):
        assert not others or set(others) == {{"graph_", "mod_"}}
        return hidden + self.inner(hidden, {name}={name})
"""
    namespace: dict[str, Any] = {"nn": nn, "torch": torch, "__name__": __name__}
    exec(source, namespace)
    return namespace["Outer"]


class Named(nn.Module):
    """Calls its layers with a keyword of a given name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name = name
        kind = layer_class(name)
        self.time = nn.Linear(1, 4)
        self.layers = nn.ModuleList(kind() for _ in range(4))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        emb, x = self.time(timestep.reshape(-1, 1))[:, None], sample
        for layer in self.layers:
            x = layer(x, **{self.name: emb, "graph_": None, "mod_": 1})
        return x


def inputs() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(1, 8, 4), torch.tensor(t)) for t in (0.9, 0.4)]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_any_keyword_of_a_submodule_is_captured(name):
    assert_same_bits(Named(name).eval(), Named(name).eval(), inputs())


class Shared(Named):
    """Calls one layer under two names, so that torch.export traces stand-ins of modules."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.again = self.layers[0]

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        x = super().forward(sample, timestep)
        return self.again(x, **{self.name: timestep})


@torch.no_grad()
@pytest.mark.parametrize("name", ["mod", "self_", "graph"])
def test_any_keyword_of_a_shared_submodule_is_captured(name):
    assert_same_bits(Shared(name).eval(), Shared(name).eval(), inputs())


class Root(Named):
    def forward(  # type: ignore[override]
        self, mod: Tensor, timestep: Tensor, *, arguments: Tensor, args: Tensor, kwargs: Tensor
    ) -> Tensor:
        return super().forward(mod + arguments, timestep) + args * kwargs


@torch.no_grad()
def test_any_keyword_of_the_model_is_captured():
    model, plain = Root("mod").eval(), Root("mod").eval()
    text = {name: torch.randn(1, 8, 4) for name in ("arguments", "args", "kwargs")}
    sample, timestep = inputs()[0]
    program = captured(model, sample, timestep, **text)
    graph = graph_module(program.graph, program.weights, "Captured", {})
    (found,) = graph(sample, timestep, *text.values())
    assert torch.equal(found, plain(sample, timestep, **text))


def with_hooks(model: Named) -> Named:
    """Add hooks that read and change the keyword."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {"mod": kwargs["mod"] * 2}

    def after(_: nn.Module, __: Any, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return output + kwargs["mod"]

    for layer in model.layers:
        layer.register_forward_pre_hook(before, with_kwargs=True)
        layer.register_forward_hook(after, with_kwargs=True)
    return model


@torch.no_grad()
def test_hooks_receive_the_keyword():
    assert_same_bits(with_hooks(Named("mod")).eval(), with_hooks(Named("mod")).eval(), inputs())


@pytest.fixture
def module_call() -> Iterator[None]:
    call, code = nn.Module.__call__, nn.Module.__call__.__code__
    yield
    assert nn.Module.__call__ is call
    assert nn.Module.__call__.__code__ is code


@torch.no_grad()
@pytest.mark.usefixtures("module_call")
def test_calls_of_modules_are_restored_after_a_capture():
    assert_same_bits(Named("mod").eval(), Named("mod").eval(), inputs())
    with pytest.raises(TypeError, match="mod"):
        nn.Linear(4, 4)(torch.zeros(4), mod=1)
