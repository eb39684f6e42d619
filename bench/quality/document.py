"""Makes ``docs/quality.md`` and its pictures from the results."""

from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.quality.claims import Claim, claims, curves_of
from bench.quality.classifier import FEATURES
from bench.quality.metrics import RESAMPLES
from bench.quality.results import Row
from bench.quality.suite import TIMED_STEPS
from fxcache.report.pareto import draw_pareto

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "quality.md"
PICTURES = DOCS / "pictures"

HOW = f"""\
This page compares the policies on the bundled models. `make quality` makes it.

PSNR and SSIM compare each picture with the picture of the same seed without caching. They show how
much a policy changes the picture. The Fréchet distance compares all pictures of a setting with the
rendered glyphs of the same captions. It uses the {FEATURES} features of the penultimate layer of a
small classifier of emoji, and shows whether the pictures are still good. There are more pictures
than features, so that covariances have full rank. For so few pictures the distance is biased
upwards, equally in all rows. Its interval contains 95% of {RESAMPLES} bootstrap resamples of the
captions.

The ideal speed-up is computed from the FLOPs of all runs. The measured speed-up is that of the
denoiser's calls alone. For each of several cached batches, {TIMED_STEPS} steps run without caching
as well, and the ratio of both times is computed from medians over calls of the same kind. The table
gives the median of these ratios, with the least and the greatest. The row without caching shows the
noise of the measurement.

Policies with a threshold were calibrated on other captions and seeds, and their thresholds were
chosen there to cover the speed-ups that they reach. The tuner used the same captions and seeds.

The bundled models know one picture for each caption, so that later steps correct errors of early
steps. Larger models are more sensitive."""

JUDGED = """\
All claims are about PSNR in dB at equal FLOPs. Curves are interpolated linearly between measured
points. "Yes" means that a claim holds at every speed-up that was compared."""


def document(models: dict[str, dict[str, Any]]) -> str:
    parts = ["# Quality against speed", HOW]
    for name, model in models.items():
        parts += [
            f"## {name}",
            protocol_line(model["protocol"], model["rows"]),
            f"![PSNR against speed-up](pictures/{picture(name).name})",
            table(model["rows"]),
        ]
    parts += ["## What holds here and what does not", JUDGED]
    for name, model in models.items():
        parts += [f"### {name}", claims_table(claims(model["rows"]))]
    return "\n\n".join(parts) + "\n"


def protocol_line(protocol: dict[str, Any], rows: list[Row]) -> str:
    measured, calibration = protocol["measured"], protocol["calibration"]
    versions = ", ".join(f"{name} {version}" for name, version in protocol["versions"].items())
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    return (
        f"{len(measured['prompts'])} pictures a setting, one of each caption, {measured['batch']} "
        f"at a time, {measured['steps']} DDIM steps; calibrated on {len(calibration['prompts'])}. "
        f"{machines}; float32, eager; {versions}."
    )


def table(rows: list[Row]) -> str:
    return tabulate(
        [line(row) for row in rows], headers="keys", tablefmt="github", disable_numparse=True
    )


def line(row: Row) -> dict[str, str]:
    speed, distance = row["speedup"], row["frechet"]
    return {
        "policy": row["curve"],
        "setting": row["label"],
        "ideal": f"{row['ideal_speedup']:.2f}×",
        "measured": f"{speed['value']:.2f}× ({speed['low']:.2f}–{speed['high']:.2f})",
        "PSNR, dB": f"{row['psnr_db']:.2f}",
        "SSIM": f"{row['ssim']:.3f}",
        "Fréchet": f"{distance['value']:.2f} ({distance['low']:.2f}–{distance['high']:.2f})",
    }


def claims_table(found: list[Claim]) -> str:
    answers = {True: "**yes**", False: "**no**", None: "–"}
    lines = [
        {"": claim.what, "numbers": claim.numbers, "holds": answers[claim.holds]} for claim in found
    ]
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def picture(name: str) -> Path:
    return PICTURES / f"pareto-{name}.png"


def draw_curves(models: dict[str, dict[str, Any]]) -> None:
    """Plot quality against speed for each model."""
    for name, model in models.items():
        pictures = len(model["protocol"]["measured"]["prompts"])
        title = f"{name}, {pictures} pictures a point"
        draw_pareto(curves_of(model["rows"]), picture(name), title)
