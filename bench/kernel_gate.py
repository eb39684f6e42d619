"""The part of this project's gate that holds the resources of its Triton kernels.

No kernel is compiled: ``binaries.json`` beside each holds registers, spills and shared memory, with
a digest of the sources. If the sources have changed since, that is a finding.
"""

import json
from pathlib import Path
from typing import Any

from fxcache.gate.config import GateConfig
from fxcache.gate.expected import Expected, minor_version
from fxcache.gate.gate import Measured, Outcome, findings_of
from fxcache.kernels.recorded import kernel_names, recorded

CASE = "kernels"
RECORDED = "those of the recorded resources"
CHANGED = "changed; record the resources: python -m fxcache.kernels.binaries --write"
EXACT = GateConfig(tiers=("exact",))


def measured() -> Measured | None:
    """Return the recorded resources of all kernels; None if those are of another Triton."""
    found = {name: recorded(name) for name in kernel_names()}
    if not all(kernel.is_of_this_triton for kernel in found.values()):
        return None
    exact: dict[str, Any] = {
        name: {"sources": RECORDED if k.current else CHANGED, **k.resources}
        for name, k in found.items()
    }
    return Measured({"kernel_resources": json.loads(json.dumps(exact))})


def check_kernels(file: Path) -> Outcome | None:
    """Hold the resources to a file of expected values; None if they are of another Triton."""
    found, expected = measured(), Expected.load(file, "cpu")
    if found is None:
        return None
    findings = findings_of(expected.cases.get(CASE, {}), found, EXACT)
    updates = tuple(update for update in expected.updates if update.case == CASE)
    return Outcome(CASE, file, minor_version(), found, tuple(findings), updates)


def update_kernels(file: Path, reason: str) -> None:
    """Write the resources to a file of expected values, if that changes them."""
    outcome, expected = check_kernels(file), Expected.load(file, "cpu")
    if outcome is not None and outcome.findings:
        expected.update(CASE, outcome.measured.to_dict(), reason)
        expected.save(file)
