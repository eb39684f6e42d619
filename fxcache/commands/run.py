"""``fxcache run``: generate images with a pipeline and fxcache."""

import argparse
from pathlib import Path

from tabulate import tabulate

from fxcache.commands.drawing import add_drawing_options, drawing_from
from fxcache.commands.options import (
    PICTURES,
    Result,
    pipeline_from,
    require_positive,
    require_suffix,
    say,
    writable,
)
from fxcache.errors import ConfigError
from fxcache.pipelines.pairs import MOST_PAIRS, PAIRS_S, compare
from fxcache.report.compare import Comparison
from fxcache.report.comparison import Spread
from fxcache.report.sheet import sheet

ROUNDS = (
    "with --compare: the measured runs with and without fxcache, which take turns; by default as "
    f"many as end within {PAIRS_S:.0f} s, at least 1 and at most {MOST_PAIRS}"
)


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_drawing_options(command)
    compare_help = "also generate the images without fxcache, and compare"
    command.add_argument("--compare", action="store_true", help=compare_help)
    command.add_argument("--rounds", type=int, help=ROUNDS)
    out = Path("fxcache.png")
    command.add_argument("--out", type=Path, default=out, help="the image file to write")
    command.add_argument("--report", type=Path, help="the file for the report, as JSON")


def run(arguments: argparse.Namespace) -> Result:
    """Generate the images, and write them and the report."""
    drawing = drawing_from(arguments)
    for file in (require_suffix(arguments.out, "--out", PICTURES), arguments.report):
        if file:
            writable(file)
    require_agreement(arguments)
    pipeline = pipeline_from(arguments)
    if arguments.compare:
        compared = compare(pipeline, drawing, arguments.out, arguments.rounds, say)
        return Result(compared.to_dict(), comparison_text(compared, arguments.out))
    images, reported = drawing.cached(pipeline)
    sheet({"fxcache": images}, drawing.prompts).save(arguments.out)
    data = reported.to_dict()
    if arguments.report:
        reported.save(arguments.report)
    return Result(data, f"{reported}\n\nwrote {arguments.out}")


def require_agreement(arguments: argparse.Namespace) -> None:
    """Raise ConfigError if options exclude each other."""
    if arguments.compare and arguments.report:
        raise ConfigError(
            "--compare writes no report",
            where="--compare --report",
            remedy="leave out one of them; --compare --json prints all measurements",
        )
    if arguments.rounds is not None:
        require_positive(arguments.rounds, "rounds")
        if not arguments.compare:
            raise ConfigError(
                "only comparisons are repeated", where="--rounds", remedy="pass --compare too"
            )


def comparison_text(compared: Comparison, out: Path) -> str:
    """Return the table of a comparison, and what its numbers are."""
    low, high, pairs = compared.speedup_low, compared.speedup_high, compared.pairs
    speedup = Spread(compared.speedup, low, high, pairs)
    rows = [
        ("steps, of them refreshed", f"{compared.steps}, {compared.refreshes}"),
        ("original step", f"{compared.original_ms:.2f} ms"),
        ("refresh step", f"{compared.refresh_ms:.2f} ms"),
        ("reuse step", "–" if compared.reuse_ms is None else f"{compared.reuse_ms:.2f} ms"),
        ("denoiser speed-up", str(speedup)),
        ("ideal speed-up, from FLOPs", f"{compared.ideal_speedup:.2f}×"),
        ("FLOPs a reuse step saves", f"{compared.share_saved:.1%}"),
        ("cached", f"{compared.cached_bytes:,} bytes"),
        ("PSNR against the original", f"{compared.psnr_db:.2f} dB"),
        ("SSIM against the original", f"{compared.ssim:.4f}"),
    ]
    defined = (
        f"n={pairs}: {pairs} whole runs without fxcache and {pairs} with it took turns, after a "
        "short one of each. The speed-up is the median of these pairs, with the range of all; "
        "--rounds N makes N of them."
    )
    return f"{tabulate(rows, tablefmt='plain')}\n\n{defined}\n\nwrote {out}"
