"""Submodules that torch.export cannot trace: graphs call them as they are, or say why not."""

import gc
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from fxcache.analysis.cost import Costs
from fxcache.capture import export as exporting
from fxcache.capture.capture import capture
from fxcache.errors import CaptureError
from fxcache.opaque import call_of
from fxcache.program import Program
from fxcache.rewrite.graph_module import graph_module
from fxcache.signature import Signature
from tests.plain import WIDTH, Block, dit, dit_inputs
from tests.routed import Branching, Halving, Rounds, Routed, routed_dit, with_mlps

T = torch.tensor(500.0)


def captured(model: nn.Module, dynamic: Any = None, **inputs: Any) -> tuple[Program, list[Tensor]]:
    """Capture ``model``; return the program and the results of its graph."""
    given = {**dit_inputs(), "timestep": T} | inputs
    signature = Signature(type(model), None, dynamic)
    call = signature.call((), given)
    program = capture(model, signature, call)
    return program, results(program, model, dynamic, **given)


def results(program: Program, model: nn.Module, dynamic: Any = None, **inputs: Any) -> Any:
    call = Signature(type(model), None, dynamic).call((), {"timestep": T} | inputs)
    with torch.no_grad():
        return graph_module(copied(program), program.weights, "Program", {})(*call.tensors)


def copied(program: Program) -> torch.fx.Graph:
    graph = torch.fx.Graph()
    graph.output(graph.graph_copy(program.graph, {}))
    return graph


def paths(program: Program) -> list[str]:
    return [call.path for call in program.opaque]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", [Routed, Branching, Halving, Rounds])
def test_the_graph_equals_the_model(kind):
    model = with_mlps(kind)
    program, (found,) = captured(model)
    assert paths(program) == ["layers.0.mlp", "layers.1.mlp"]
    with torch.no_grad():
        assert torch.equal(found, model(timestep=T, **dit_inputs()))
        for seed in range(1, 4):  # other values take other branches
            inputs = dit_inputs(seed=seed)
            assert torch.equal(results(program, model, **inputs)[0], model(timestep=T, **inputs))


def test_retries_are_few(monkeypatch):
    attempts, attempt = [], exporting.attempted

    def counted(*args: Any) -> Any:
        attempts.append(args)
        return attempt(*args)

    monkeypatch.setattr(exporting, "attempted", counted)
    captured(routed_dit(depth=4))
    assert len(attempts) == 3, "as it is, without one submodule, and without its class"


class Sometimes(Branching):
    """A layer whose values may decide."""

    decides = False

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.decides else self.linear(x)


def test_submodules_of_the_class_that_can_be_traced_are_traced():
    model = with_mlps(Sometimes, depth=3)
    model.layers[1].mlp.decides = True
    program, (found,) = captured(model)
    assert paths(program) == ["layers.1.mlp"]
    with torch.no_grad():
        assert torch.equal(found, model(timestep=T, **dit_inputs()))


def test_flops_are_those_of_the_submodule():
    model = routed_dit()
    program, _ = captured(model)
    costs = Costs(program)
    mixtures = [node for node in program.graph.nodes if call_of(node)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.layers[0].mlp(torch.ones(2, 16, WIDTH))
    assert [costs.of([node])["linear"] for node in mixtures] == [counter.get_total_flops()] * 2
    assert counter.get_total_flops() == 2 * 32 * WIDTH * (WIDTH + 3)


class Handing(nn.Module):
    """A layer whose values decide; its caller hands one over in an attribute."""

    factor: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor if x.sum() > 0 else x


class HandingOver(Block):
    """A block that does so."""

    def forward(self, x: Tensor, emb: Tensor, text: Tensor) -> Tensor:
        self.mlp.factor = 1 + emb.mean()
        return super().forward(x, emb, text)


class Kept:
    """An object with a tensor."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class TakingObject(nn.Module):
    """A layer whose values decide, and whose argument is an object."""

    def forward(self, kept: Kept) -> Tensor:
        return kept.tensor if kept.tensor.sum() > 0 else kept.tensor * 2


class PassingObject(Block):
    """A block that passes one."""

    def __init__(self) -> None:
        super().__init__()
        self.taking = TakingObject()

    def forward(self, x: Tensor, emb: Tensor, text: Tensor) -> Tensor:
        return super().forward(self.taking(Kept(x)), emb, text)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("block", [HandingOver, PassingObject])
def test_the_submodule_around_it_is_called_if_it_cannot_be(block):
    model = dit(3)
    for number in (1, 2):
        model.layers[number] = block()
        if block is HandingOver:
            model.layers[number].mlp = Handing()
    model.eval()
    program, _ = captured(model)
    assert paths(program) == ["layers.1", "layers.2"]
    assert "if " in program.opaque[0].where, "the line is that of the submodule inside"
    with torch.no_grad():
        for seed in range(3):
            inputs = dit_inputs(seed=seed)
            assert torch.equal(results(program, model, **inputs)[0], model(timestep=T, **inputs))


class Counting(nn.Module):
    """A layer whose values decide, and which counts in a buffer."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x if x.sum() > 0 else -x


def test_a_submodule_that_writes_to_buffers_is_refused():
    model = with_mlps(Counting)
    with pytest.raises(CaptureError, match="writes to its arguments, weights or buffers") as caught:
        captured(model)
    assert "if x.sum() > 0" in caught.value.where
    assert model.layers[0].mlp.count == 0


class Wrong(nn.Module):
    """A layer that does not accept its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.ones(3, 3)


def test_a_model_that_does_not_accept_its_inputs_raises_the_error_of_the_trace():
    with pytest.raises(CaptureError, match="check that the model itself accepts") as caught:
        captured(with_mlps(Wrong))
    assert "x @ torch.ones(3, 3)" in caught.value.where


def test_a_model_without_values_is_refused():
    model = routed_dit().to("meta")
    inputs = {name: value.to("meta") for name, value in dit_inputs().items()}
    with pytest.raises(CaptureError, match="numpy"):
        captured(model, timestep=T.to("meta"), **inputs)


def test_the_model_and_the_generators_stay_as_they_were():
    class Noisy(Branching):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            noise = torch.rand(()).item() + random.random() + np.random.rand()
            return super().forward(x) + noise

    model = with_mlps(Noisy)
    attributes = [dict(vars(m)) for m in model.modules()]
    before = generators()
    signature = Signature(type(model), None, None)
    capture(model, signature, signature.call((), {**dit_inputs(), "timestep": T}))
    assert generators() == before
    for then, module in zip(attributes, model.modules(), strict=True):
        assert then.keys() == vars(module).keys()
        assert all(then[name] is vars(module)[name] for name in then)


def generators() -> list[Any]:
    numpy: Any = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist()]


RESULTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "its input": lambda x, kept: x,
    "a view": lambda x, kept: x.transpose(1, 2).contiguous().transpose(1, 2),
    "a slice": lambda x, kept: torch.cat([x, x], -1)[..., ::2],
    "an expanded tensor": lambda x, kept: x[:, :1].expand(-1, 16, -1),
    "a tensor that it keeps": lambda x, kept: kept.copy_(x),
    "several": lambda x, kept: {"x": (x, x), "none": None, "two": [2 * x]},
}


class Returning(Branching):
    """A layer with results of any kind."""

    def __init__(self, kind: str, x: Tensor) -> None:
        super().__init__()
        self.kind, self.kept = kind, [torch.zeros_like(x)]

    def forward(self, x: Tensor) -> Any:
        super().forward(x)
        return RESULTS[self.kind](x, self.kept[0])


class Adding(nn.Module):
    """Adds up what another layer returns."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner(x)
        if isinstance(found, dict):
            return found["x"][0] + found["x"][1] + found["two"][0]
        return found


@pytest.mark.sweep(3)
@pytest.mark.parametrize("kind", RESULTS)
def test_results_are_owned_by_the_graph(kind):
    model = dit(1)
    for layer in model.layers:
        layer.mlp = Adding(Returning(kind, torch.zeros(2, 16, WIDTH)))
    model.eval()
    program, (found,) = captured(model)
    assert paths(program) == ["layers.0.mlp.inner"]
    with torch.no_grad():
        assert torch.equal(found, model(timestep=T, **dit_inputs()))
        inner = model.layers[0].mlp.inner
        x = torch.randn(2, 16, WIDTH)
        (call,) = (c for c in program.opaque if c.module is inner)
        first = call.run([x], [w.registry[w.name] for w in call.weights])
        plain, _ = torch.utils._pytree.tree_flatten(inner(x))
        kept = [tensor.clone() for tensor in first]
        inner(2 * x)
        for own, copy, tensor in zip(first, kept, filter(torch.is_tensor, plain), strict=True):
            assert torch.equal(own, copy)
            assert own.stride() == tensor.stride()
    memory = {t.untyped_storage().data_ptr() for t in first}
    assert len(memory) == len(first)
    assert x.untyped_storage().data_ptr() not in memory


def test_sizes_may_vary_if_results_follow_arguments():
    model = routed_dit()
    dynamic = {"sample": (0,), "text": (0,)}
    program, (found,) = captured(model, dynamic)
    assert len(program.opaque) == 2
    with torch.no_grad():
        for batch in (2, 3, 5):
            inputs = dit_inputs(batch)
            found = results(program, model, dynamic, **inputs)[0]
            assert torch.equal(found, model(timestep=T, **inputs))


class Summed(nn.Module):
    """A layer that contains one."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = Flat()

    def forward(self, x: Tensor) -> Tensor:
        return self.flat(x).view(x.shape)


class Flat(Branching):
    """A layer that joins the batch with the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(0, 1)


def test_sizes_that_cannot_vary_are_refused():
    with pytest.raises(CaptureError, match="sizes cannot vary") as caught:
        captured(with_mlps(Summed), {"sample": (0,), "text": (0,)})
    assert "mlp.flat" in str(caught.value)
    assert "dynamic" in caught.value.remedy
    captured(with_mlps(Summed))


def test_another_kind_of_result_is_an_error():
    class Changing(Branching):
        def forward(self, x: Tensor) -> Tensor:
            found = super().forward(x)
            return found if self.training is False and found.sum() != 0 else found.double()

    model = with_mlps(Changing)
    program, _ = captured(model)
    model.layers[1].mlp.linear.weight.data.zero_()
    model.layers[1].mlp.linear.bias.data.zero_()
    with pytest.raises(CaptureError, match=r"layers.1.mlp returns a tensor .*float64"):
        results(program, model, **dit_inputs())


def test_a_handle_whose_program_is_gone_is_an_error():
    program, _ = captured(routed_dit())
    call = program.opaque[0]
    handle, tensors = call.handle, [torch.ones(2, 16, WIDTH)]
    weights = [w.registry[w.name] for w in call.weights]
    assert len(torch.ops.fxcache.call_submodule(handle, tensors, weights)) == 1
    del program, call
    gc.collect()
    with pytest.raises(fxcache.StateError, match="is gone"):
        torch.ops.fxcache.call_submodule(handle, tensors, weights)
