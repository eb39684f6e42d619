"""Compares fxcache with other caches on the device: the contenders of ``bench.peers``.

Contenders run beside the model without caching. In eager mode several share an item, and take
turns. The models have random weights in bfloat16, and are larger than on the CPU.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

import torch

from bench.gpu.items import Item, require
from bench.gpu.setup import Setup
from bench.gpu.timing import EventClock
from fxcache.versions import version_of

EAGER = "eager"
TOGETHER = 6  # contenders in one item; each holds a model
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
        import_module("bench.peers.lineup")
    except ImportError:  # of diffusers, without which there is no model
        yield Item("the contenders", no_lineup)
        return
    for name in setup.peers:
        chosen, _ = lines(setup, name)
        yield Item(f"{name}, {EAGER}", partial(eager, setup, name, chosen))
    for way, name in product(setup.compiled, setup.peers):
        for contender in lines(setup, name)[0]:
            call = partial(compiled, setup, name, contender, way)
            yield Item(f"{name}, {way}, {contender.name}", call)
    for name in setup.peers:
        _, others = lines(setup, name)
        for first in range(0, len(others), TOGETHER):
            group = others[first : first + TOGETHER]
            part = f"{name}, {EAGER}, {first // TOGETHER + 2}"
            yield Item(part, partial(eager, setup, name, group))


def lines(setup: Setup, name: str) -> tuple[list[Any], list[Any]]:
    """Return the contenders of the setup on a model: those that are compiled too, and the others.

    The model without caching is beside all of them.
    """
    lineup = import_module("bench.peers.lineup")
    asked = [c for c in lineup.SUBJECTS[name][1] if c is not lineup.ours.PLAIN]
    if setup.contenders:
        asked = [c for c in asked if c.name in setup.contenders]
    chosen = lineup.CHOSEN["compiled"]
    return [c for c in asked if c in chosen], [c for c in asked if c not in chosen]


def no_lineup() -> dict[str, Any]:
    """Raise the error of the import."""
    return {"contenders": len(import_module("bench.peers.lineup").SUBJECTS)}


def require_packages(contenders: Sequence[Any]) -> None:
    """Raise NotInstalledError unless the packages of the contenders can be imported.

    fxcache and torch can: this code imports them, and fxcache may be a checkout that no installer
    has seen.
    """
    for package in {contender.package for contender in contenders} - set(OWN):
        if version_of(package) is None:
            raise NotInstalledError(f"{package} is not installed; carry its wheel")


def eager(setup: Setup, name: str, contenders: Sequence[Any]) -> dict[str, Any]:
    """Time contenders that take turns in eager mode, with fxcache by the same rule beside them."""
    from bench.peers import lineup, ours
    from bench.peers.timing import eager_rows

    require_packages(contenders)
    wanted = {c.name for c in contenders} | {c.twin for c in contenders}
    together = [c for c in lineup.SUBJECTS[name][1] if c.name in wanted]
    with warnings.catch_warnings(action="ignore"):  # of the peers
        rows = eager_rows(
            partial(subject_of, setup, name),
            [ours.PLAIN, *together],
            ask_of(setup),
            clock=partial(EventClock, setup),
        )
    return checked({c.name: rows[c.name] for c in contenders})


def compiled(setup: Setup, name: str, contender: Any, way: str) -> dict[str, Any]:
    """Time a compiled contender beside the uncompiled model without caching."""
    from bench.peers import ours
    from bench.peers.compiling import Way, compiled_row

    require_packages([contender])
    how = Way(setup.compiled[way], partial(EventClock, setup))
    make = partial(subject_of, setup, name)
    with warnings.catch_warnings(action="ignore"):  # of the peers
        row = compiled_row(make, contender, ours.PLAIN, ask_of(setup), how)
    return checked({contender.name: {"package": contender.package, **row}})


def checked(rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the result of an item. An error of an installed peer is a result.

    Raises:
        CheckError: fxcache fails where it has to work.
    """
    for name, row in rows.items():
        refused = row.get("error", "").startswith("CutError")  # a cut that the model does not have
        require(row["package"] not in OWN or refused or "error" not in row, f"{name} works", row)
    return {"rows": dict(rows)}


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
