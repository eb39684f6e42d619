"""Compares cuts with published figures, on meta tensors, without weights and arithmetic."""

import pytest
import torch
from diffusers import UNet2DModel
from torch import fx

import fxcache
from bench.frontier import MODELS, on_meta
from fxcache.analysis import cost
from fxcache.analysis.cost import Costs, count, is_counted
from fxcache.capture.capture import capture
from fxcache.signature import Signature
from tests import tiny
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

# Convolutions and linears of a reuse step, in 10⁹ multiply-accumulates: SD 1.5, 512×512, batch 1.
SD15_FULL = 338.61
SD15_REUSE = (
    20.69, 57.25, 98.01, 132.59, 167.56, 208.39, 243.04, 278.16, 314.96, 322.72, 327.65, 332.58,
)  # fmt: skip
SD15_ATTENTION = 63.03


def giga_macs(flops: int) -> float:
    return flops / 2e9


@pytest.fixture(scope="module")
def sd15() -> list[fxcache.Cut]:
    return fxcache.list_cuts(on_meta(MODELS["Stable Diffusion 1.5, 512×512"]))


def test_sd15_reuse_cost_at_all_twelve_skip_indices(sd15):
    assert [cut.skip_index for cut in sd15] == list(range(12))
    for cut, published in zip(sd15, SD15_REUSE, strict=True):
        by_op = cut.reuse_flops_by_op
        assert giga_macs(by_op["conv"] + by_op["linear"]) == pytest.approx(published, abs=0.05)


def test_sd15_full_cost(sd15):
    expected = 2e9 * (SD15_FULL + SD15_ATTENTION)
    assert sd15[0].full_flops == pytest.approx(expected, abs=2e9 * 0.05)


def test_sd15_names_and_bytes(sd15):
    assert sd15[0].name == "up_blocks.3.attentions.1"
    assert sd15[2].name == "up_blocks.2"
    assert sd15[11].name == "mid_block"
    assert sd15[0].cache_bytes == 320 * 64 * 64 * 4
    assert sd15[11].cache_bytes == 1280 * 8 * 8 * 4


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    ("model", "skips"),
    [("Stable Diffusion XL, 1024×1024", 9), ("Stable Diffusion 2.1, 768×768", 12)],
)
def test_other_shapes(model, skips):
    cuts = fxcache.list_cuts(on_meta(MODELS[model]))
    assert [cut.skip_index for cut in cuts] == list(range(skips))
    saved = [cut.share_saved for cut in cuts]
    assert saved == sorted(saved, reverse=True)
    assert saved[0] > 0.8
    assert saved[-1] > 0


def test_layers_per_block_other_than_two():
    assert len(fxcache.list_cuts(tiny.small_unet())) == 4
    assert len(fxcache.list_cuts(tiny.unet(layers_per_block=(1, 3, 2)))) == 9


def test_unconditional_unet():
    with torch.device("meta"):
        model = UNet2DModel(sample_size=32).eval()
    cuts = fxcache.list_cuts(model)
    assert len(cuts) == 12
    assert cuts[0].share_saved > 0.5


def test_a_unet_in_plain_pytorch_is_cut():
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = torch.nn.Conv2d
            self.enter, self.down = conv(4, 8, 3, padding=1), conv(8, 16, 3, 2, padding=1)
            self.deep = conv(16, 16, 3, padding=1)
            self.join = conv(32, 8, 3, padding=1)
            self.leave = conv(16, 4, 3, padding=1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            outer = self.enter(x) + t
            inner = self.down(outer)
            deep = self.join(torch.cat([inner, self.deep(inner)], dim=1))  # skip first
            up = torch.nn.functional.interpolate(deep, scale_factor=2)
            return self.leave(torch.cat([up, outer], dim=1))  # skip last

    model = Plain().eval()
    cuts = fxcache.list_cuts(model, torch.randn(1, 4, 8, 8), torch.tensor(0.5))
    assert [c.skip_index for c in cuts] == [0, 1]
    assert cuts[1].name == "deep"
    assert cuts[0].reuse_flops == 2 * 8 * 8 * 9 * (4 * 8 + 16 * 4)


def test_a_cut_can_be_named_by_index_path_or_itself():
    example = {**tiny.inputs(), "timestep": 1}
    cut = fxcache.list_cuts(tiny.small_unet(), **example)[1]
    for request in (1, cut.name, cut):
        unet = fxcache.optimize(
            tiny.small_unet(), cut=request, capture=fxcache.CaptureConfig(example_inputs=example)
        )
        (captured,) = fxcache.report(unet).captures
        assert captured.cut["name"] == cut.name
        assert captured.cut["reuse_flops"] == cut.reuse_flops


def test_auto_saves_the_most():
    unet = fxcache.optimize(
        tiny.small_unet(),
        capture=fxcache.CaptureConfig(example_inputs={**tiny.inputs(), "timestep": 1}),
    )
    (captured,) = fxcache.report(unet).captures
    assert captured.cut["skip_index"] == 0


def test_list_cuts_leaves_an_optimised_model_optimised():
    unet = fxcache.optimize(tiny.small_unet())
    assert len(fxcache.list_cuts(unet)) == 4
    fxcache.restore(unet)


def test_flops_are_counted_outside_of_inference_mode_too():
    """A program that was captured in inference mode may be cut outside of it."""
    model, inputs = dit(2), dit_inputs()
    with torch.inference_mode():
        signature = Signature(type(model))
        call = signature.call((inputs["sample"].clone(), torch.tensor(5.0), inputs["text"]), {})
        program = capture(model, signature, call)
    with torch.enable_grad():
        calls = (node for node in program.graph.nodes if node.op == "call_function")
        assert sum(count(node) for node in calls if is_counted(node)) > 0


def test_equal_calls_are_counted_once_a_process(monkeypatch):
    """Those of another batch are other calls."""
    signature = Signature(type(dit()))
    calls: list[fx.Node] = []

    def counting(node: fx.Node) -> int:
        calls.append(node)
        return count(node)

    def total(batch: int) -> int:
        call = signature.call((), dit_inputs(batch) | {"timestep": torch.tensor(5.0)})
        program = capture(dit(), signature, call)
        return Costs(program).total(program.graph.nodes)

    monkeypatch.setattr(cost, "COUNTED", {})
    monkeypatch.setattr(cost, "count", counting)
    one = total(1)
    first = len(calls)
    assert total(1) == one
    assert len(calls) == first < 20
    assert total(2) > 1.9 * one
    assert first < len(calls) <= 2 * first
