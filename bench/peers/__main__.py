"""Measures fxcache beside other caches: ``python -m bench.peers --out FILE``.

A part that the file already has is not measured again.
"""

import argparse
import gc
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from bench.environment import environment
from bench.peers import ours
from bench.peers.compiling import compiled_row, count_graphs
from bench.peers.contender import Contender
from bench.peers.lineup import CHOSEN, LIKE, PARTS_OF, SUBJECTS
from bench.peers.quality import quality_rows
from bench.peers.results import Results
from bench.peers.subject import STEPS, Ask, Subject
from bench.peers.tables import PARTS
from bench.peers.timing import Row, eager_rows, told
from bench.quality.suite import machine
from fxcache.versions import installed_versions

PACKAGES = ("torch", "diffusers", "DeepCache", "cache-dit", "para-attn", "hicache-pp", "fxcache")


def versions() -> dict[str, str]:
    return dict.fromkeys(PACKAGES, "not installed") | installed_versions(PACKAGES)


def measure(name: str, parts: tuple[str, ...], results: Results) -> None:
    """Measure the parts of a subject that the results lack."""
    make, contenders = SUBJECTS[name]
    ask = Ask()
    if "eager" in parts and not results.has(name, "eager"):
        results.add(name, "eager", eager_rows(make, contenders, ask))
        say(name, "eager")
    for part, row in by_contender(make, ask).items():
        for contender in CHOSEN[part] if part in parts and part in PARTS_OF[name] else ():
            done = results.has(name, part, contender.name)
            tried = LIKE.get(contender, contender)
            if done or tried not in contenders or results.failed(name, tried.name):
                continue
            results.add(name, part, {contender.name: row(contender)})
            gc.collect()
            say(name, f"{part}: {contender.name}")


def by_contender(
    make: Callable[[], Subject], ask: Ask
) -> dict[str, Callable[[Contender], Row | list[Row]]]:
    """Return how each part is measured, one contender after another."""

    def graphs(contender: Contender) -> Row:
        try:
            return count_graphs(make, contender, ask)
        except Exception as error:  # any error of a peer is its result
            return {"error": told(error)}

    return {
        "graphs": graphs,
        "compiled": lambda contender: compiled_row(make, contender, ours.PLAIN, ask),
        "quality": lambda contender: quality_rows(make, contender, ours.PLAIN, STEPS),
    }


def say(name: str, what: str) -> None:
    print(f"{name}, {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the peers
    logging.disable(logging.WARNING)
    results = Results(arguments.out)
    results.begin(environment("cpu") | {"machine": machine(), "versions": versions()})
    for name in arguments.subjects or SUBJECTS:
        measure(name, tuple(arguments.parts), results)


if __name__ == "__main__":
    main()
