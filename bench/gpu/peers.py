"""Compares fxcache with other caches on the device: the contenders of ``bench.peers``.

Each item is one contender on one model in one way to run, beside the model without caching. The
models have random weights in bfloat16, and are larger than on the CPU.
"""

import warnings
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch

from bench.gpu.items import Item, require
from bench.gpu.setup import Setup
from bench.gpu.timing import EventClock

EAGER = "eager"
STEPS = {True: 20, False: 7}  # of a run, by whether models have their full size
OWN = ("fxcache", "torch")  # the packages of contenders that must not fail
FLUX_SMALL = {
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 16,
    "axes_dims_rope": (4, 6, 6),
}
FLUX = {  # the width of FLUX.1, and a quarter of its blocks
    "in_channels": 64,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
}
UNET_SMALL = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
UNET = {  # Stable Diffusion 1.5
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}
WAN_SMALL = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "num_layers": 3}
WAN = {  # the width of Wan 2.1 1.3B, and a third of its blocks
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "rope_max_seq_len": 1024,
}


class Shape(NamedTuple):
    """The function of ``bench.peers.models`` that makes a model, and its sizes.

    A size is what differs from the usual configuration, and the side of the latent.
    """

    make: str
    full: tuple[dict[str, Any], int]
    small: tuple[dict[str, Any], int]


SHAPES = {
    "FLUX-shaped": Shape("flux", (FLUX, 64), (FLUX_SMALL, 4)),
    "U-Net": Shape("unet", (UNET, 64), (UNET_SMALL, 8)),
    "Wan-shaped": Shape("wan", (WAN, 64), (WAN_SMALL, 4)),
}


class NotInstalledError(Exception):
    """The package of a contender is missing. ``--wheels`` carries it."""


def items(setup: Setup) -> Iterator[Item]:
    """Yield the contenders that are compiled in every way to run, then the others in eager mode."""
    try:
        lineup = import_module("bench.peers.lineup")
    except ImportError:  # of diffusers, without which there is no model
        yield Item("the contenders", no_lineup)
        return
    chosen = lineup.CHOSEN["compiled"]
    for name in setup.peers:
        for way in (EAGER, *setup.compiled):
            for contender in lineup.SUBJECTS[name][1]:
                if contender in chosen and contender is not lineup.ours.PLAIN:
                    yield from item(setup, name, contender, way)
    for name in setup.peers:
        for contender in lineup.SUBJECTS[name][1]:
            if contender not in chosen:
                yield from item(setup, name, contender, EAGER)


def no_lineup() -> dict[str, Any]:
    """Raise the error of the import."""
    return {"contenders": len(import_module("bench.peers.lineup").SUBJECTS)}


def item(setup: Setup, name: str, contender: Any, way: str) -> Iterator[Item]:
    """Yield the item of a contender if the setup has it."""
    if not setup.contenders or contender.name in setup.contenders:
        call = partial(measure, setup, name, contender, way)
        yield Item(f"{name}, {contender.name}, {way}", call)


def measure(setup: Setup, name: str, contender: Any, way: str) -> dict[str, Any]:
    """Return the row of a contender. An error of an installed peer is its result.

    Raises:
        NotInstalledError: The contender's package is missing. A later run measures it.
        CheckError: fxcache fails.
    """
    require_package(contender.package)
    with warnings.catch_warnings(action="ignore"):  # of the peers
        row = {EAGER: eager}.get(way, compiled)(setup, name, contender, way)
    if contender.package in OWN:
        require("error" not in row, "fxcache does not fail", row)
    return row


def require_package(package: str) -> None:
    try:
        version(package)
    except PackageNotFoundError as error:
        raise NotInstalledError(f"{package} is not installed; carry its wheel") from error


def eager(setup: Setup, name: str, contender: Any, _: str) -> dict[str, Any]:
    """Time a contender in eager mode, with fxcache by the same rule beside it."""
    from bench.peers import lineup, ours
    from bench.peers.timing import eager_rows

    twins = [c for c in lineup.SUBJECTS[name][1] if c.name == contender.twin]
    rows = eager_rows(
        partial(subject_of, setup, name),
        [ours.PLAIN, contender, *twins],
        ask_of(setup),
        clock=partial(EventClock, setup),
    )
    return rows[contender.name]


def compiled(setup: Setup, name: str, contender: Any, way: str) -> dict[str, Any]:
    """Time a compiled contender beside the uncompiled model without caching."""
    from bench.peers import ours
    from bench.peers.compiling import Way, compiled_row

    how = Way(setup.compiled[way], partial(EventClock, setup))
    make = partial(subject_of, setup, name)
    return compiled_row(make, contender, ours.PLAIN, ask_of(setup), how)


def ask_of(setup: Setup) -> Any:
    from bench.peers.subject import Ask

    return Ask(STEPS[setup.full])


def subject_of(setup: Setup, name: str) -> Any:
    """Return a subject of ``bench.peers`` on the device, in the first dtype of the setup."""
    from bench.gpu.diffusers_models import default_dtype
    from bench.peers import models

    shape = SHAPES[name]
    config, side = {True: shape.full, False: shape.small}[setup.full]
    with torch.device(setup.device), default_dtype(setup.dtypes[0]):
        return getattr(models, shape.make)(models.Size(config, side))
