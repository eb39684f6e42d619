"""A small transformer as the subject of a gate, and a gate of its exact counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fxcache
from fxcache.gate.config import GateConfig
from fxcache.gate.gate import Outcome, check, update
from fxcache.gate.loop import subject_of
from fxcache.gate.subject import Subject
from tests.plain import dit, dit_inputs

STEPS = 9
CASE = "small transformer"
EXACT = GateConfig(tiers=("exact",))


def first_call(batch: int = 2) -> dict[str, Any]:
    """Return the arguments of the first call of a run."""
    return {**dit_inputs(batch), "timestep": torch.tensor(900.0)}


def small(sample: Callable[[Any], Any] | None = None, depth: int = 3, **options: Any) -> Subject:
    """Return an optimised transformer, with the default policy unless ``options`` name another."""
    model = fxcache.optimize(dit(depth), **options)
    return subject_of(model, first_call(), STEPS, sample)


def expect(file: Path, subject: Subject, config: GateConfig = EXACT) -> None:
    """Write what ``subject`` gives as the values to expect."""
    update(subject, CASE, file, config, "a test")


def gate(file: Path, subject: Subject, config: GateConfig = EXACT) -> Outcome:
    """Hold ``subject`` to the values in ``file``."""
    return check(subject, CASE, file, config)


def texts(outcome: Outcome) -> dict[str, str]:
    """Return the text of each finding by its entry."""
    return {finding.entry: finding.text for finding in outcome.findings}
