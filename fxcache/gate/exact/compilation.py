"""Exact counts of what torch.compile does: graphs, breaks, recompilations and guards."""

import warnings
from contextlib import ExitStack
from typing import Any, NamedTuple

from fxcache._torch import compilations, compiled_by
from fxcache.gate.subject import Subject

RUNS = 2  # a second run must compile nothing more


class Compiled(NamedTuple):
    """What torch.compile did.

    Attributes:
        counts: The number of graphs, guards, frames and recompilations, and breaks by reason.
        reasons: The guards that failed.
    """

    counts: dict[str, Any]
    reasons: list[str]


def compilation_of(subject: Subject) -> Compiled:
    """Compile the denoisers with a backend that changes nothing, and make two runs."""
    with compilations() as found, subject.fresh(), ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings(action="ignore"))  # of Dynamo's own imports
        for module in subject.denoisers.values():
            undo.enter_context(compiled_by(module, found.backend))
        for _ in range(RUNS):
            subject.run()
    counts = {
        "graphs": len(found.graphs),
        "guards": sum(found.guards),
        "frames": found.frames,
        "recompilations": len(found.recompilations),
        "breaks": found.breaks,
    }
    return Compiled(counts, list(dict.fromkeys(found.recompilations)))
