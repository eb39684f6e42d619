"""Measure the quality and speed of every policy on the bundled models: ``python -m bench.quality``.

The result of each setting is saved at once. The next call measures the settings that are missing,
or that were measured with another protocol.
"""

import argparse
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.quality import classifier
from bench.quality.document import DOCUMENT, document, draw_curves
from bench.quality.results import Results, read
from bench.quality.sampling import split_captions
from bench.quality.settings import SETTINGS
from bench.quality.suite import Bench, Protocol, measure
from fxcache.integrations.diffusers import load_pipeline
from fxcache.versions import installed_versions

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "bench" / "models"
RESULTS = ROOT / "bench" / "results" / "quality.json"
NAMES = ("emoji-sd", "emoji-dit")


def environment() -> dict[str, Any]:
    """Return the versions that results depend on. Each result names its machine itself."""
    weights = hashlib.sha256(classifier.WEIGHTS.read_bytes()).hexdigest()[:16]
    return {"classifier": weights, "versions": installed_versions()}


def pipeline(name: str) -> Any:
    loaded = load_pipeline(str(MODELS / name), torch.float32, "cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def measure_all(names: list[str], results: Results) -> None:
    measured, calibration, glyphs = split_captions()
    for name in names:
        bench = Bench(
            partial(pipeline, name), Protocol(measured, calibration), classifier.load(), glyphs
        )
        results.begin(
            name, bench.describe() | environment(), [setting.to_dict() for setting in SETTINGS]
        )
        measure(name, bench, SETTINGS, results)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--document", action="store_true", help="only write docs/quality.md")
    arguments = parser.parse_args()
    if not arguments.document:
        there = [name for name in NAMES if (MODELS / name).exists()]
        measure_all(arguments.models or there, Results(RESULTS))
    models = read(RESULTS)
    draw_curves(models)
    DOCUMENT.write_text(document(models), encoding="utf-8")


if __name__ == "__main__":
    main()
