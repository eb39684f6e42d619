"""Tests signatures: every input and output by name and kind, and the order of inputs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.analysis.hoisting import HoistLevel
from fxcache.codecs.codec import entries_of
from fxcache.errors import RewriteError
from fxcache.graph_inputs import InputKind, OutputKind
from fxcache.rewrite.factory import VariantKey
from fxcache.rewrite.variant_signature import VariantSignature
from fxcache.rewrite.variants import Variants
from tests import tiny
from tests.engines import variants_of
from tests.loops import sample
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")


def variants_after(model: nn.Module, timesteps: int = 6) -> Variants:
    """Return the graphs of an optimised DiT after a run."""
    inputs = dit_inputs()
    with torch.no_grad(), fxcache.session(model, num_steps=timesteps):
        for t in torch.linspace(900, 100, timesteps):
            model(timestep=t, **inputs)
    return variants_of(model)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "forecast": {"forecast": fxcache.Taylor(2)},
    "eight bits": {"cache": fxcache.CacheConfig(dtype=torch.int8)},
    "hoisted": {"hoist": "once"},
    "observed": {"policy": fxcache.FirstBlock(1e9, max_reuses=2)},
    "all": {"policy": fxcache.FirstBlock(1e9, max_reuses=2), "hoist": "table"}
    | {"forecast": fxcache.Taylor(1)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_signature_describes_its_tensors(name, monkeypatch):
    """Real inputs and outputs have the dtypes and shapes in the signature."""
    checked: list[InputKind] = []

    def bind(self: VariantSignature, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        inputs = original(self, *args, **kwargs)
        if any(output.sink.kind is OutputKind.HOISTED for output in self.outputs):
            return inputs  # evaluated for a batch of timesteps, under vmap
        for value, spec in zip(inputs, self.inputs, strict=True):
            if spec.tensor is not None:
                assert (value.dtype, tuple(value.shape)) == (spec.tensor.dtype, spec.tensor.shape)
                assert value.stride() == spec.tensor.stride, spec.name
            checked.append(spec.source.kind)
        return inputs

    original = VariantSignature.bind
    monkeypatch.setattr(VariantSignature, "bind", bind)
    variants = variants_after(fxcache.optimize(dit(), **{"hoist": None} | OPTIONS[name]))
    kinds = {
        "forecast": {InputKind.COEFFICIENT},
        "hoisted": {InputKind.HOISTED},
        "observed": {InputKind.SHARED},
        "all": {InputKind.HOISTED, InputKind.SHARED, InputKind.COEFFICIENT},
    }
    assert {InputKind.USER, InputKind.CACHED} | kinds.get(name, set()) == set(checked)
    for variant in variants.made.values():
        results = [o for o in variant.signature.outputs if o.sink.kind is OutputKind.RESULT]
        assert len(results) == variants.num_outputs
        points = set(range(len(variants.plan.points)))
        assert set(variant.signature.reads) | set(variant.signature.writes) == points


def test_a_unets_signatures_have_names_kinds_and_batches():
    unet = fxcache.optimize(tiny.small_unet(), cut=0)
    sample(unet, 4, **tiny.inputs(batch=3))
    variants = variants_of(unet)
    full, reuse = variants.variant(frozenset()).signature, variants.variant(variants.all).signature
    specs = [(spec, spec.tensor) for spec in reuse.inputs if spec.tensor is not None]
    assert len(specs) == len(reuse.inputs)
    found = {spec.name: (spec.source.kind, tensor.batch_dim) for spec, tensor in specs}
    user = InputKind.USER
    assert found == {
        "sample": (user, 0),
        "timestep": (user, None),
        "encoder_hidden_states": (user, 0),
        "cached_0": (InputKind.CACHED, 0),
    }
    assert (full.reads, full.writes) == ((), (0,))
    assert (reuse.reads, reuse.writes) == ((0,), ())
    assert [output.sink.kind for output in full.outputs] == [OutputKind.RESULT, OutputKind.CACHED]


def test_a_size_that_may_vary_is_a_name():
    capture = fxcache.CaptureConfig(dynamic={"sample": (0,), "encoder_hidden_states": (0,)})
    unet = fxcache.optimize(tiny.small_unet(), cut=0, capture=capture)
    sample(unet, 3, **tiny.inputs(batch=3))
    variants = variants_of(unet)
    inputs = variants.variant(variants.all).signature.inputs
    shapes = [spec.tensor.shape for spec in inputs if spec.tensor is not None]
    symbol = shapes[0][0]
    assert isinstance(symbol, str)
    assert [shape[0] for shape in shapes if shape] == [symbol] * 3
    (cached,) = (s.tensor for s in inputs if "cached" in s.name)
    assert cached is not None
    assert cached.batch_dim == 0


def test_bound_inputs_are_in_the_graphs_order():
    model = fxcache.optimize(dit(), hoist="once", forecast=fxcache.Taylor(1))
    variants = variants_after(model)
    (signature,) = (
        v.signature
        for k, v in variants.made.items()
        if k == VariantKey(variants.all, False, HoistLevel.PER_RUN)
    )
    user = [torch.full((1,), float(i)) for i in range(signature.num_user)]
    hoisted = [torch.full((1,), 10.0 + i) for i in range(9)]
    cached = entries_of({n: torch.full((1,), 20.0 + n) for n in reversed(signature.reads)})
    bound = signature.bind(
        user, hoisted, (), cached, {name: torch.ones(1) for name in signature.coefficients}
    )
    expected = [*user, *(hoisted[n] for n in signature.hoisted)]
    assert all(map(torch.equal, bound, expected))
    assert [float(t) for t in bound[len(expected) : -1]] == [20.0 + n for n in signature.reads]


def test_inputs_out_of_order_are_refused():
    unet = fxcache.optimize(tiny.small_unet(), cut=0)
    sample(unet, 3, **tiny.inputs())
    variants = variants_of(unet)
    signature = variants.variant(variants.all).signature
    with pytest.raises(RewriteError, match="not ordered by kind"):
        VariantSignature(signature.inputs[::-1], signature.outputs)
