"""Tests graphs that write to the cache: they store the bits that the cache stores for results."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import fxcache
from fxcache.codecs.identity import Identity
from fxcache.errors import RewriteError
from fxcache.graph_inputs import InputKind
from fxcache.rewrite.pass_manager import PassManager
from fxcache.rewrite.passes.clean import own_outputs, remove_dead_nodes
from fxcache.rewrite.passes.fuse import fuse
from fxcache.rewrite.passes.read_cache import read_cache
from fxcache.rewrite.passes.store_in_place import store_in_place
from fxcache.rewrite.passes.write_cache import write_cache
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variants import AS_IS, NOTHING, Variants
from fxcache.runtime.feature_cache import FeatureCache
from tests.engines import variants_of
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

CUTS: list[Any] = [f"layers.{i}.{part}" for i in range(3) for part in ("out", "mlp")]
ANY_BATCH = {"capture": fxcache.CaptureConfig(dynamic={"sample": (0,), "text": (0,)})}
STORED: dict[str, dict[str, Any]] = {
    "unchanged": {},
    "last three": {"forecast": fxcache.Taylor(2)},
    "int8": {"cache": fxcache.CacheConfig(dtype=torch.int8)},
    "float8": {"cache": fxcache.CacheConfig(dtype=torch.float8_e4m3fn)},
    "any batch": ANY_BATCH,
    "residual": {"cut": "auto"},
}


def captured(batch: int = 2, **options: Any) -> Variants:
    """Return the graphs of a DiT that caches every attention and every MLP but the last."""
    settings = {"cut": CUTS, "hoist": None} | options
    model = fxcache.optimize(dit(), fxcache.Uniform(3), **settings)
    with torch.no_grad():
        model(timestep=torch.tensor(9), **dit_inputs(batch))
    return variants_of(model)


def tensors_of_call(seed: int, batch: int = 2) -> tuple[Tensor, ...]:
    inputs = dit_inputs(batch, seed)
    return inputs["sample"], torch.tensor(9.0), inputs["text"]


def run(
    variants: Variants, variant: Variant, cache: FeatureCache, step: int, batch: int, fresh: bool
) -> Tensor:
    """Run ``variant`` and store its values, as the engine does. Return its output."""
    tensors, codec = tensors_of_call(step, batch), variants.form.codec
    if variant.signature.stores:
        cache.reserve(variants.layouts.of(variant, tensors), step, variants, fresh)
    with torch.no_grad():
        results = variant.module(*variant.signature.bind(tensors, cached=cache.entries))
        (output,), values, _, _ = variant.signature.unpack(results)
        if variant.signature.stores:
            assert not values
            cache.complete(variant.signature.stores, step, codec, fresh)
        else:
            cache.write(values, step, codec, variants, fresh)
    return output


def contents(cache: FeatureCache) -> Mapping[int, tuple[Any, ...]]:
    return {n: (entry.steps, *entry.buffers) for n, entry in sorted(cache.entries.items())}


@pytest.mark.parametrize(
    ("options", "batch"),
    [*(pytest.param(options, 2, id=name) for name, options in STORED.items()), (ANY_BATCH, 3)],
)
def test_graphs_store_the_same_bits_as_the_cache(options, batch):
    variants = captured(**options)
    returned, in_place = variants.variant(NOTHING), variants.variant(NOTHING, in_place=True)
    by_cache, by_graph = FeatureCache(), FeatureCache()
    for step, fresh in ((0, True), (3, False), (5, False), (9, False), (0, True), (2, False)):
        output = run(variants, in_place, by_graph, step, batch, fresh)
        assert torch.equal(output, run(variants, returned, by_cache, step, batch, fresh))
        stored, expected = contents(by_graph), contents(by_cache)
        assert stored.keys() == expected.keys() == set(range(len(variants.plan.points)))
        for (steps, *buffers), (expected_steps, *expected_buffers) in zip(
            stored.values(), expected.values(), strict=True
        ):
            assert steps == expected_steps
            assert all(map(torch.equal, buffers, expected_buffers))
            assert [b.stride() for b in buffers] == [b.stride() for b in expected_buffers]


def test_a_variant_that_reuses_some_points_writes_only_the_others():
    variants = captured()
    reused = frozenset(CUTS[:2])
    variant = variants.variant(reused, in_place=True)
    signature = variant.signature
    assert set(signature.reads) == set(variants.plan.numbers(reused))
    assert set(signature.stores) == set(range(len(CUTS))) - set(signature.reads)
    kinds = [spec.source.kind for spec in signature.inputs]
    assert kinds == [InputKind.USER] * 3 + [InputKind.CACHED] * 2 + [InputKind.BUFFER] * 4
    assert signature.writes == ()


def test_the_variant_that_reuses_everything_is_the_same_graph():
    variants = captured()
    assert variants.variant(variants.all, in_place=True) is variants.variant(variants.all)


def test_buffers_keep_their_addresses_between_runs():
    variants, cache = captured(forecast=fxcache.Taylor(1)), FeatureCache()
    variant = variants.variant(NOTHING, in_place=True)
    addresses = []
    for step, fresh in ((0, True), (3, False), (0, True)):
        run(variants, variant, cache, step, 2, fresh)
        addresses.append([b.data_ptr() for e in cache.entries.values() for b in e.buffers])
    assert addresses[0] == addresses[1] == addresses[2]


@pytest.mark.parametrize("later", [remove_dead_nodes(), fuse(torch.device("cpu"), [])])
def test_no_pass_may_follow_that_would_remove_the_writes(later):
    passes = [read_cache({}, AS_IS, None), write_cache({}), remove_dead_nodes(), own_outputs()]
    PassManager([*passes, later, store_in_place(Identity())])
    with pytest.raises(RewriteError, match="no node writes to an input"):
        PassManager([*passes, store_in_place(Identity()), later])
