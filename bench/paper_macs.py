"""The multiply-accumulates of DeepCache's models: ``python -m bench.paper_macs --out FILE``.

The models of the paper (arXiv 2312.00858v2, tables 1 to 3) are built on the meta device from their
published configurations. Their cuts are counted in two ways: as fxcache counts, and as the paper's
tool counts.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, fx, nn

from bench import output
from bench.frontier import MODELS, on_meta
from fxcache.analysis.cost import Flops, flops_by_node, kind_of, merged, op_name
from fxcache.capture.capture import capture
from fxcache.partition.cut import CachePoint
from fxcache.partition.frontier import Frontier
from fxcache.program import module_paths, shape_of, value_of
from fxcache.signature import Signature

INTERVALS = (1, 2, 3, 4, 5, 10, 20)
NORMS = ("group_norm", "layer_norm")


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper, and the figures that the paper prints.

    Attributes:
        build: Makes the model on the meta device.
        inputs: The shape of each input besides the timestep, batch 1.
        table: The number of the paper's table.
        steps: The sampling steps of the paper.
        skip_index: The skip connection of the cut, 0 for the outermost. The paper's branch is one
            more.
        printed: The paper's figures by interval, as printed: 10⁹ multiply-accumulates of a step,
            averaged over the steps. Interval 1 is the uncached model.
        norms_inside: The paper's tool counts the normalisations in modules whose path contains
            this text.
    """

    build: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[int, ...]]
    table: int
    steps: int
    skip_index: int
    printed: Mapping[int, str]
    norms_inside: str = ""


def ldm() -> UNet2DConditionModel:
    """Return the U-Net of latent diffusion's ``cin256-v2.yaml``: one head, one token per class."""
    return on_meta({
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (192, 384, 576, 960),
        "attention_head_dim": 1,  # diffusers reads this as the number of heads
        "cross_attention_dim": 512,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
    })  # fmt: skip


def ddpm(size: int, channels: tuple[int, ...], attention_level: int) -> UNet2DModel:
    """Return a DDPM's U-Net on meta.

    Args:
        size: Height and width of the picture.
        channels: The channels of each level.
        attention_level: The only level with attention.
    """
    attends = [level == attention_level for level in range(len(channels))]
    with torch.device("meta"):
        return UNet2DModel(
            sample_size=size,
            block_out_channels=channels,
            layers_per_block=2,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
            attention_head_dim=None,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
            norm_eps=1e-6,
        ).eval()


PAPER: dict[str, PaperModel] = {
    "DDPM, CIFAR-10 32×32": PaperModel(
        build=lambda: ddpm(32, (128, 256, 256, 256), attention_level=1),
        inputs={"sample": (3, 32, 32)},
        table=2,
        steps=100,
        skip_index=2,
        printed={1: "6.1", 2: "4.15", 3: "3.54", 5: "3.01", 10: "2.63"},
    ),
    "DDPM, LSUN Bedroom and Churches 256×256": PaperModel(
        build=lambda: ddpm(256, (128, 128, 256, 256, 512, 512), attention_level=4),
        inputs={"sample": (3, 256, 256)},
        table=2,
        steps=100,
        skip_index=2,
        printed={1: "248.7", 2: "190.8", 3: "172.3", 5: "156.0"},
    ),
    "LDM-4-G, ImageNet 256×256": PaperModel(
        build=ldm,
        inputs={"sample": (3, 64, 64), "encoder_hidden_states": (1, 512)},
        table=1,
        steps=250,
        skip_index=0,
        printed={1: "99.82", 2: "52.12", 3: "36.48", 5: "23.50", 10: "13.97", 20: "9.39"},
        # The tool looks modules up by their exact class. Latent diffusion's residual blocks and
        # its head normalise with a subclass of GroupNorm, which the tool does not know.
        norms_inside="attentions",
    ),
    "Stable Diffusion 1.5, 512×512": PaperModel(
        build=lambda: on_meta(MODELS["Stable Diffusion 1.5, 512×512"]),
        inputs={"sample": (4, 64, 64), "encoder_hidden_states": (77, 768)},
        table=3,
        steps=50,
        skip_index=1,
        printed={1: "338.83", 5: "130.45"},
    ),
}  # fmt: skip


def counted(paper: PaperModel) -> dict[str, Any]:
    """Count a step of a model at the paper's cut, in both ways.

    Returns:
        The description of the cut; multiply-accumulates of a full step, and of a reuse step at each
        skip connection; and for each interval the refreshes, the average of a step in both ways,
        and the paper's figure.
    """
    frontier = frontier_of(paper)
    full = step(frontier, frontier.needs.live_without({}), paper)
    reuses = [step(frontier, frontier.live((CachePoint(v),)), paper) for v in frontier.skips]
    reuse = reuses[paper.skip_index]
    return {
        "table": paper.table,
        "steps": paper.steps,
        "skip_index": paper.skip_index,
        "cut": frontier.name(frontier.skips[paper.skip_index]),
        "full": full,
        "reuse_by_skip_index": reuses,
        "intervals": {str(n): average(paper, n, full, reuse) for n in INTERVALS},
    }


def frontier_of(paper: PaperModel) -> Frontier:
    """Capture the model on meta, and return its cuts."""
    model = paper.build()
    inputs = {name: on_device(1, *shape) for name, shape in paper.inputs.items()}
    inputs["timestep"] = on_device(dtype=torch.int64)
    signature = Signature(type(model))
    return Frontier(capture(model, signature, signature.call((), inputs)))


def on_device(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def step(frontier: Frontier, nodes: Iterable[fx.Node], paper: PaperModel) -> dict[str, int]:
    """Return the multiply-accumulates of the nodes of one step, in both ways.

    Returns:
        ``macs``: all multiply-accumulates; ``attention``: those of them in attention's products;
        ``paper_tool``: what the paper's tool counts.
    """
    program = frontier.program
    by_node = flops_by_node(program.graph, program.weights)
    nodes = list(nodes)
    flops = merged(by_node.get(node, {}) for node in nodes)
    return {
        "macs": sum(flops.values()) // 2,
        "attention": flops.get("attention", 0) // 2,
        "paper_tool": sum(
            by_paper_tool(node, by_node.get(node, {}), paper.norms_inside) for node in nodes
        ),
    }


def by_paper_tool(node: fx.Node, flops: Flops, norms_inside: str) -> int:
    """Count one node as ``flops.py`` in DeepCache's repository counts the module around it.

    It counts modules, not operators. Convolutions and linear layers count with their biases, one
    for each output element of a convolution and one for each channel of a linear layer. A
    normalisation counts two for each element. The products of attention are not modules.
    """
    name, kind = op_name(node), kind_of(node)
    if name in NORMS:
        inside = any(norms_inside in path for path in module_paths(node))
        return 2 * math.prod(shape_of(value_of(node.args[0]))) if inside else 0  # type: ignore[arg-type]
    if kind not in ("conv", "linear"):
        return 0
    output_shape = shape_of(value_of(node))
    has_bias = len(node.args) > 2 and node.args[2] is not None
    biases = math.prod(output_shape) if kind == "conv" else output_shape[-1]
    return flops[kind] // 2 + (biases if has_bias else 0)


def average(
    paper: PaperModel, interval: int, full: Mapping[str, int], reuse: Mapping[str, int]
) -> dict[str, Any]:
    """Return the average of a step if every ``interval``-th step refreshes, k = ⌈T/N⌉ in all."""
    refreshes = math.ceil(paper.steps / interval)
    reuses = paper.steps - refreshes
    means = {
        way: (refreshes * full[way] + reuses * reuse[way]) / paper.steps
        for way in ("macs", "paper_tool")
    }
    return {"refreshes": refreshes, **means, "printed": paper.printed.get(interval)}


def measured() -> dict[str, Any]:
    """Count all models of the paper."""
    return {name: counted(paper) for name, paper in PAPER.items()}


if __name__ == "__main__":
    output.run(__doc__, measured)
