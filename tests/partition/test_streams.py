"""Tests residual cuts: which streams are found, cached, and still computed."""

from typing import Any

import pytest
import torch
from torch import nn

import fxcache
from bench.denoisers import RECIPES, tiny
from fxcache.analysis.streams import Shortcut
from fxcache.partition.request import CutRequest
from fxcache.program import module_paths
from fxcache.rewrite.variants import Variants
from tests.engines import variants_of
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")


def cut(model: nn.Module, inputs: dict[str, Any], request: CutRequest = "auto") -> Variants:
    """Return the variants of ``model`` under ``request``."""
    fxcache.optimize(model, cut=request, capture=fxcache.CaptureConfig(example_inputs=inputs))
    return variants_of(model)


def of_diffusers(kind: str, request: CutRequest = "auto") -> Variants:
    recipe = RECIPES[kind]
    model: Any = tiny(recipe)
    return cut(model, recipe.inputs(model.config, False), request)


def computed(graph: torch.fx.Graph, container: str) -> set[str]:
    """Return the blocks of ``container`` with a linear layer in ``graph``."""
    linears = [n for n in graph.nodes if "linear" in str(n.target)]
    paths = {path for node in linears for path in module_paths(node)}
    return {p for p in paths if p.startswith(f"{container}.") and p.count(".") == 1}


def names(container: str, *numbers: int) -> set[str]:
    return {f"{container}.{number}" for number in numbers}


def test_auto_spans_the_whole_stack_of_a_plain_transformer():
    variants = cut(dit(), {**dit_inputs(), "timestep": torch.tensor(1.0)})
    assert variants.plan.cut.name == "layers.0..layers.3"
    assert variants.plan.cut.mode == "residual"
    assert variants.plan.cut.cached_tensors == 1
    assert variants.plan.cut.blocks_skipped == 4
    assert computed(variants.full.graph, "layers") == names("layers", 0, 1, 2, 3)
    assert computed(variants.cached_skip.graph, "layers") == set()


def test_the_first_and_the_last_blocks_can_stay_computed():
    inputs = {**dit_inputs(), "timestep": torch.tensor(1.0)}
    variants = cut(dit(6), inputs, ("layers.1", "layers.3"))
    assert computed(variants.cached_skip.graph, "layers") == names("layers", 0, 4, 5)
    assert variants.plan.cut.blocks_skipped == 3


def test_a_listed_name_selects_its_cut():
    inputs = {**dit_inputs(), "timestep": torch.tensor(1.0)}
    listed = fxcache.list_cuts(dit(), **inputs)
    assert [c.name for c in listed] == [f"layers.{i}..layers.3" for i in range(4)]
    assert [c.share_saved for c in listed] == sorted((c.share_saved for c in listed), reverse=True)
    for request in (listed[1], listed[1].name, ("layers.1", "layers.3")):
        assert cut(dit(), inputs, request).plan.cut == listed[1]


def test_the_second_stream_is_cached_if_it_is_read():
    whole = of_diffusers("SD3Transformer2DModel").plan.cut
    middle = of_diffusers("SD3Transformer2DModel", ("transformer_blocks.0", "transformer_blocks.2"))
    assert whole.cached_tensors == 1, "the last block drops the text"
    assert middle.plan.cut.cached_tensors == 2
    assert computed(middle.cached_skip.graph, "transformer_blocks") == names(
        "transformer_blocks", 3
    )


@pytest.mark.parametrize("kind", ["FluxTransformer2DModel", "Flux2Transformer2DModel"])
def test_streams_are_followed_through_concatenation_and_split(kind):
    """Text and image become one sequence and two again. Only the image's part is cached."""
    variants = of_diffusers(kind)
    (point,) = variants.plan.points
    assert variants.plan.cut.name == "transformer_blocks.0..single_transformer_blocks.1"
    assert isinstance(point.shortcut, Shortcut)
    assert point.shortcut.nodes == (), "nothing is joined only to be parted again"
    (leaf,) = point.shortcut.leaves
    assert module_paths(leaf) == ["x_embedder"]
    assert not computed(variants.cached_skip.graph, "transformer_blocks")


def test_a_cut_in_a_joint_stream_caches_one_tensor():
    request = ("transformer_blocks.1", "single_transformer_blocks.0")
    variants = of_diffusers("Flux2Transformer2DModel", request)
    (point,) = variants.plan.points
    assert point.shortcut is not None
    assert len(point.shortcut.leaves) == 2, "the text's and the picture's stream, joined"
    assert variants.plan.cut.cached_tensors == 1


def test_a_stream_in_double_precision_between_blocks_is_followed_through_its_casts():
    (point,) = of_diffusers("WanTransformer3DModel").plan.points
    assert point.along_stream


def test_skip_connections_are_preferred_where_they_save_half():
    variants = of_diffusers("HunyuanDiT2DModel")
    assert variants.plan.cut.mode == "feature"
    assert variants.plan.cut.skip_index == 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_refreshing_in_half_precision_is_exact_although_the_difference_rounds(dtype):
    inputs = {k: v.to(dtype) for k, v in dit_inputs().items()}
    timestep = torch.tensor(500.0)
    expected = dit().to(dtype)(timestep=timestep, **inputs)
    model = fxcache.optimize(dit().to(dtype), policy=fxcache.Explicit(steps=(0,)))
    with fxcache.session(model):
        refreshed, reused = (model(timestep=timestep, **inputs) for _ in range(2))
    assert torch.equal(refreshed, expected)
    assert not torch.equal(reused, expected), "in such precision x + (y - x) is not y"
    limit = 8 * torch.finfo(dtype).eps * expected.abs().max()
    assert (reused - expected).abs().max() <= limit


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (("layers.3", "layers.1"), "computes nothing from the values of layers.3"),
        (("layers.0", "layers.9"), "no module named 'layers.9'"),
        ("layers.0..layers.x", "no module named 'layers.x'"),
        ("layers.2", "no output of DiT depends on the latent"),
    ],
)
def test_impossible_cuts_are_refused(request_, said):
    inputs = {**dit_inputs(), "timestep": torch.tensor(1.0)}
    with pytest.raises(fxcache.CutError, match=said):
        fxcache.optimize(dit(), cut=request_, capture=fxcache.CaptureConfig(example_inputs=inputs))


@pytest.mark.parametrize("request_", [("a",), ("a", "b", "c"), ("a", 1), ["a", ("b",)], [], None])
def test_wrong_requests_for_cuts_are_refused(request_):
    with pytest.raises(fxcache.ConfigError, match="pair of module paths"):
        fxcache.optimize(dit(), cut=request_)
