"""Measures all exact counts of a subject."""

import json
from typing import Any, NamedTuple

import torch

from fxcache.gate.exact.compilation import compilation_of
from fxcache.gate.exact.graphs import fusions_of, graphs_of, kernel_resources
from fxcache.gate.exact.launches import launches_of
from fxcache.gate.exact.memory import peaks
from fxcache.gate.exact.quality import quality_of
from fxcache.gate.exact.runs import HostReads, device_waits, runs_of
from fxcache.gate.exact.sizes import artifact_of, imports
from fxcache.gate.subject import Subject
from fxcache.report.records import CaptureReport
from fxcache.report.report import hoist_level, report_of
from fxcache.rewrite.variants import Variants
from fxcache.runtime.engine import Engine

Tree = dict[str, Any]


class Exact(NamedTuple):
    """Exact counts, and explanations of some.

    Attributes:
        counts: A tree of counts. Each leaf is a number, a text or a list.
        causes: Explanations by the path of a count.
    """

    counts: Tree
    causes: dict[str, list[str]]


@torch.no_grad()
def measure(subject: Subject) -> Exact:
    """Measure all exact counts. The engines of the subject stay as they are."""
    with subject.original():
        original = subject.run()
    with subject.fresh() as engines:
        first = subject.run()
        first_runs = {name: runs_of(engine) for name, engine in engines.items()}
        for engine in engines.values():
            engine.runs.clear()
        with HostReads() as reads, peaks(subject.denoisers, engines) as peak:
            later = subject.run()
        denoisers = {
            name: {**denoiser(subject, name, engine, first_runs[name]), **vars(peak[name])}
            for name, engine in engines.items()
        }
        waits = waits_of(subject)
    compiled = compilation_of(subject)
    counts: Tree = {
        "settings": dict(subject.settings),
        "denoisers": denoisers,
        "host_reads": reads.by_operator,
        **waits,
        "compilation": compiled.counts,
        "quality": {
            "first_run": quality_of(original, first),
            "later_run": quality_of(original, later),
        },
        "imports": imports(),
    }
    return Exact(as_read(counts), {"compilation": compiled.reasons})


def as_read(counts: Tree) -> Tree:
    """Return counts as they are when they have been written to JSON and read again."""
    read: Tree = json.loads(json.dumps(counts))
    return read


def waits_of(subject: Subject) -> Tree:
    """Return how often a run waits for a CUDA device; nothing on other devices."""
    if subject.device.type != "cuda":
        return {}
    with device_waits() as waits:
        subject.run()
    return {"device_waits": len(waits)}


def denoiser(subject: Subject, name: str, engine: Engine, first_runs: list[Any]) -> Tree:
    """Return the counts of one denoiser after two runs, of which ``engine`` lists the second."""
    module = subject.denoisers[name]
    reported = report_of(module, engine)
    captures = zip(engine.captures.values(), reported.captures, strict=True)
    return {
        "policy": reported.policy,
        "first_run": first_runs,
        "later_run": runs_of(engine),
        "captures": [capture(variants, reported) for variants, reported in captures],
        "artifact": artifact_of(module),
    }


def capture(variants: Variants, reported: CaptureReport) -> Tree:
    """Return the counts of one capture."""
    return {
        "inputs": reported.inputs,
        "cut": f"{variants.plan.cut.mode} {variants.plan.cut.name}",
        "hoisted": hoist_level(variants).name.lower(),
        "signal": reported.signal,
        "weight_bytes": reported.weight_bytes,
        "hoisted_weight_bytes": reported.hoisted_weight_bytes,
        "graphs": graphs_of(variants),
        "kernels": fusions_of(variants),
        "kernel_resources": kernel_resources(variants),
        "inductor": launches_of(variants),
    }
