"""The resources of kernels that ``binaries.json`` holds, without compiling the kernels again."""

import json
from dataclasses import dataclass
from typing import Any

import triton

import fxcache.kernels.binaries as binaries


@dataclass(frozen=True)
class Recorded:
    """What the file of one kernel holds.

    Attributes:
        triton: The version of Triton that compiled the kernel.
        current: Whether the kernel's sources are still those of the file.
        resources: The resources by example, kernel and target, see ``binaries.resources``.
    """

    triton: str
    current: bool
    resources: dict[str, Any]

    @property
    def is_of_this_triton(self) -> bool:
        """Whether the installed Triton compiled the kernel. Another one says nothing about it."""
        return bool(self.triton == triton.__version__)


def recorded(name: str) -> Recorded:
    """Read the file of the kernel in folder ``name``."""
    found = json.loads((binaries.HERE / name / binaries.EXPECTED).read_text(encoding="utf-8"))
    current = found["sources"] == binaries.sources_digest(name)
    return Recorded(found["triton"], current, found["examples"])


def kernel_names() -> list[str]:
    """Return the names of all kernels."""
    return sorted(file.parent.name for file in binaries.HERE.glob(f"*/{binaries.EXPECTED}"))
