"""``fxcache inspect``: list the possible cuts of a model, and the work that each saves."""

import argparse
import inspect as python_inspect
from collections.abc import Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from fxcache.commands.options import Result, require_positive
from fxcache.errors import ConfigError
from fxcache.integrations.diffusers import load_empty, load_pipeline
from fxcache.integrations.example_inputs import example_inputs
from fxcache.partition.cut import Cut
from fxcache.pipelines.drawing import first_call
from fxcache.planning import list_cuts

DTYPES = {name: getattr(torch, name) for name in ("float32", "int64", "int32", "bool")}


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "source", help="a config.json, the folder of a model or pipeline, or a hub id"
    )
    command.add_argument("--batch", type=int, default=1, help="the batch size")
    shape = "the shape of an input, for models whose configuration does not tell it: "
    shape += "hidden_states=1,16,64,64 or timestep=1:int64; a number alone is a shape of one size, "
    shape += "and NAME= a scalar; can be repeated"
    command.add_argument("--input", action="append", default=[], metavar="NAME=SIZES", help=shape)
    prompt = "load the pipeline, and take the inputs of its first call for this prompt"
    command.add_argument("--prompt", help=prompt)


def run(arguments: argparse.Namespace) -> Result:
    """List the cuts of the model, without reading its weights unless there is a prompt."""
    batch = require_positive(arguments.batch, "batch")
    inputs = dict(map(input_from, arguments.input))
    if arguments.prompt is not None:
        pipeline = load_pipeline(arguments.source, torch.float32, "cpu")
        model, args, kwargs = first_call(pipeline, [arguments.prompt] * batch)
        return listed(model, batch, list_cuts(model, *args, **kwargs))
    model = load_empty(arguments.source)
    return listed(model, batch, list_cuts(model, **(inputs or determined(model, batch))))


def determined(model: nn.Module, batch: int) -> dict[str, Any]:
    """Return inputs of the shapes that the configuration tells.

    Raises:
        ConfigError: It does not tell them. The error names the inputs.
    """
    try:
        return example_inputs(model, batch)
    except ConfigError as error:
        names = list(python_inspect.signature(type(model).forward).parameters)[1:]
        raise ConfigError(
            error.what,
            where=f"{type(model).__name__}.forward({', '.join(names)})",
            remedy=f"pass the shape of each that a call has: --input {names[0]}=1,16,64,64; or the "
            'folder of its pipeline with --prompt "…"',
        ) from error


def input_from(text: str) -> tuple[str, torch.Tensor]:
    """Return the name and a tensor on meta for a text such as ``timestep=1:int64``.

    Raises:
        ConfigError: The text has another form.
    """
    name, equals, described = text.partition("=")
    sizes, _, dtype = described.partition(":")
    dtype = dtype or "float32"
    numbers: Sequence[str] = [size for size in sizes.split(",") if size]
    if not (name and equals and dtype in DTYPES and all(n.isdecimal() for n in numbers)):
        raise ConfigError(
            f"{text!r} does not describe an input",
            where="--input",
            remedy="write NAME=SIZES or NAME=SIZES:DTYPE, for example timestep=1:int64; dtypes: "
            + ", ".join(DTYPES),
        )
    return name, torch.zeros([int(n) for n in numbers], dtype=DTYPES[dtype], device="meta")


def listed(model: nn.Module, batch: int, cuts: Sequence[Cut]) -> Result:
    """Return the table of the cuts."""
    rows = [
        {
            "skip": cut.skip_index,
            "cut": cut.name,
            "full GFLOPs": cut.full_flops / 1e9,
            "reuse GFLOPs": cut.reuse_flops / 1e9,
            "saved": f"{cut.share_saved:.1%}",
            "cached bytes": f"{cut.cache_bytes:,}",
        }
        for cut in cuts
    ]
    name = type(model).__name__
    data = {"model": name, "batch": batch, "cuts": [c.to_dict() for c in cuts]}
    if not cuts:
        return Result(
            data, f"{name} has no possible cut: neither skip connections nor streams of blocks"
        )
    table = tabulate(rows, headers="keys", floatfmt=".2f")
    return Result(data, f"{name}, batch {batch}\n\n{table}")
