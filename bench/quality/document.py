"""``docs/quality.md`` and its pictures, made from the results."""

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
What each policy does to the pictures of the bundled models. Made by `make quality`.

PSNR and SSIM compare each picture with the one that the same seed gives without caching: they tell
how much of the picture a policy changes. The Fréchet distance compares all of a setting's pictures
with the rendered glyphs of the same captions, in the {FEATURES} penultimate features of a small
classifier of emoji: it tells whether they are still good pictures. There are more pictures than
features, so that covariances have full rank; even so the distance is biased upwards for so few
pictures, alike in all rows. Its interval holds 95% of {RESAMPLES} bootstrap resamples of the
captions.

The ideal speed-up is from FLOPs, over all runs. The measured one is of the denoiser's calls alone:
beside each of several cached batches {TIMED_STEPS} steps are run without caching, and the ratio of
the two is taken, from medians of calls that do the same. Given is the median of the ratios, with
the least and the greatest. The row without caching shows the noise.

Policies with a threshold were calibrated, and their thresholds chosen to spread over the speed-ups
that they reach, on other captions and seeds; so was the tuner.

The bundled models know one picture for each caption: what a policy changes early in a run, later
steps put right. Larger models forgive less."""

JUDGED = """\
Each judged by PSNR, in dB, at equal FLOPs; between measured points a curve is taken to be straight.
A "yes" means at every speed-up compared."""


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
    """A Pareto picture of each model."""
    for name, model in models.items():
        pictures = len(model["protocol"]["measured"]["prompts"])
        title = f"{name}, {pictures} pictures a point"
        draw_pareto(curves_of(model["rows"]), picture(name), title)
