"""``fxcache inspect``: list the possible cuts of a model, and the work that each saves."""

import argparse

from tabulate import tabulate

from fxcache.commands.options import Result
from fxcache.errors import ConfigError
from fxcache.integrations.diffusers import load_empty
from fxcache.integrations.example_inputs import example_inputs
from fxcache.planning import list_cuts


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "source", help="a config.json, the folder of a model or pipeline, or a hub id"
    )
    command.add_argument("--batch", type=int, default=1, help="the batch size")


def run(arguments: argparse.Namespace) -> Result:
    """List the cuts of the model, without reading its weights."""
    if arguments.batch < 1:
        raise ConfigError(
            f"batch={arguments.batch} is below 1", where="inspect", remedy="pass --batch 1 or more"
        )
    model = load_empty(arguments.source)
    cuts = list_cuts(model, **example_inputs(model, arguments.batch))
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
    data = {"model": name, "batch": arguments.batch, "cuts": [c.to_dict() for c in cuts]}
    if not cuts:
        return Result(
            data, f"{name} has no possible cut: neither skip connections nor streams of blocks"
        )
    table = tabulate(rows, headers="keys", floatfmt=".2f")
    return Result(data, f"{name}, batch {arguments.batch}\n\n{table}")
