"""``fxcache compare``: compare policies with each other, with no caching and with fewer steps."""

import argparse
from pathlib import Path
from typing import Any

import torch

from fxcache.commands.contenders import PLAN, Contender, add_contender_options, contenders_from
from fxcache.commands.options import (
    DRAWINGS,
    PICTURES,
    Result,
    add_pipeline_options,
    cut_from,
    pipeline_from,
    require_positive,
    require_suffix,
    say,
    writable,
)
from fxcache.errors import ConfigError
from fxcache.partition.request import AUTO
from fxcache.pipelines.compare import compare_settings
from fxcache.pipelines.drawing import Drawing
from fxcache.report.comparison import Row, as_table, draw_chart, write_csv
from fxcache.report.sheet import sheet

EXAMPLE = "--policy uniform --option interval=3 --policy protectedends"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_pipeline_options(command)
    purpose = "a prompt, or the name of a class; can be repeated"
    command.add_argument("--prompt", action="append", required=True, help=purpose)
    add_contender_options(command, plan=True)
    rounds = "measured runs of each row; all rows take turns"
    command.add_argument("--rounds", type=int, default=5, help=rounds)
    compiling = "compile the denoisers in all rows with torch.compile, by this backend"
    command.add_argument(
        "--compile",
        nargs="?",
        const="inductor",
        metavar="BACKEND",
        help=f"{compiling} (default: inductor)",
    )
    out = Path("compare.png")
    command.add_argument("--out", type=Path, default=out, help="the sheet of pictures to write")
    command.add_argument("--chart", type=Path, help="the file for a chart of quality and speed")
    command.add_argument("--csv", type=Path, help="the file for the table")


def run(arguments: argparse.Namespace) -> Result:
    """Compare, and write the sheet, the chart and the table."""
    rounds = require_positive(arguments.rounds, "rounds")
    original = Drawing(arguments.prompt, require_positive(arguments.steps, "steps"), arguments.seed)
    settings = settings_from(arguments, original)
    files = files_from(arguments)
    require_backend(arguments.compile)
    pipeline = pipeline_from(arguments)
    rows, images = compare_settings(pipeline, original, settings, rounds, say, arguments.compile)
    captions = [row.caption for row in rows]
    sheet(dict(zip(captions, images, strict=True)), arguments.prompt).save(arguments.out)
    if arguments.chart:
        draw_chart(rows, arguments.chart, title_of(pipeline, rows[0], len(arguments.prompt)))
    if arguments.csv:
        write_csv(rows, arguments.csv)
    data = {"rows": [row.to_dict() for row in rows], "files": list(map(str, files))}
    return Result(data, f"{as_table(rows)}\n\nwrote {', '.join(map(str, files))}")


def require_backend(backend: str | None) -> None:
    """Raise ConfigError if torch.compile has no such backend."""
    if backend is None:
        return
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ConfigError(
            f"torch.compile has no backend {backend!r}",
            where=f"--compile {backend}",
            remedy=f"pass one of: {', '.join(known)}",
        )


def title_of(pipeline: Any, original: Row, pictures: int) -> str:
    """Return the title of the chart."""
    return f"{type(pipeline).__name__}, {original.steps} steps, {pictures} pictures"


def files_from(arguments: argparse.Namespace) -> list[Path]:
    """Return the files to write, after checking that they can be written."""
    files = [require_suffix(arguments.out, "--out", PICTURES)]
    if arguments.chart:
        files.append(require_suffix(arguments.chart, "--chart", DRAWINGS))
    if arguments.csv:
        files.append(arguments.csv)
    return list(map(writable, files))


def settings_from(arguments: argparse.Namespace, original: Drawing) -> dict[str, Drawing]:
    """Return what to compare, by label.

    Raises:
        ConfigError: There is nothing to compare, or the same twice.
    """
    contenders = contenders_from(arguments)
    labels = [contender.label for contender in contenders]
    if not contenders or len(set(labels)) < len(labels):
        raise ConfigError(
            "two policies are the same" if contenders else "there is no policy to compare",
            where="fxcache compare",
            remedy=f"name one or more different ones: {EXAMPLE}",
        )
    cut = cut_from(arguments.cut)
    return {c.label: drawing_of(c, original, cut) for c in contenders}


def drawing_of(contender: Contender, original: Drawing, cut: Any) -> Drawing:
    """Return the pictures of a contender."""
    return Drawing(
        original.prompts,
        original.steps,
        original.seed,
        contender.policy,
        AUTO if PLAN in contender.names else cut,
        contender.plan,
        contender.optimize_options,
    )
