"""The machine that native code is compiled for, and whether this machine can run it."""

import platform
import re
from pathlib import Path
from typing import Any

import torch

from fxcache._torch import cpu_instructions
from fxcache.deploy.fields import Fields
from fxcache.errors import ArtifactError

TARGET = ("device", "system", "machine", "instructions", "features", "capability", "torch")
CPU_INFO = Path("/proc/cpuinfo")
# What compilers use of a CPU, in the names of Linux. Other entries are about the system.
FEATURE = re.compile(
    r"(?:s?sse\w*|avx\w*|amx\w*|bmi\d|fma|f16c|popcnt|movbe|adx|gfni|vaes|vpclmulqdq|sha_ni|abm"
    r"|neon|asimd\w*|sve\w*|bf16|i8mm|fphp|atomics)"
)


def target_of(device: torch.device) -> dict[str, Any]:
    """Return the description of this machine as a target for ``device``."""
    return {**machine_of(device), "instructions": cpu_instructions()}


def machine_of(device: torch.device) -> dict[str, Any]:
    """Return what code must agree with. No compiler is needed to find it."""
    return {
        "device": device.type,
        "system": platform.system(),
        "machine": platform.machine(),
        "features": sorted(cpu_features()),
        "capability": capability_of(device),
        "torch": str(torch.__version__),
    }


def cpu_features() -> set[str]:
    """Return the instruction sets of this CPU that compilers use; empty if the system is silent."""
    if not CPU_INFO.is_file():
        return set()
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", CPU_INFO.read_text(), re.MULTILINE)
    return {word for word in (lines[0].split() if lines else ()) if FEATURE.fullmatch(word)}


def capability_of(device: torch.device) -> str:
    """Return the compute capability of a GPU, such as ``9.0``; empty for the CPU."""
    if device.type != "cuda":
        return ""
    return ".".join(map(str, torch.cuda.get_device_capability(device)))


def require_target(fields: Fields, device: torch.device) -> None:
    """Raise ArtifactError unless code for the target ``fields`` runs on this machine.

    Args:
        fields: The target, as ``target_of`` described it.
        device: The device of the model.
    """
    here = machine_of(device)
    # The instructions are those that the compiler chose; the features tell what it may have used.
    for name in ("device", "system", "machine", "capability", "torch"):
        if (wanted := fields.of(name, str)) != here[name]:
            raise other_target(fields, f"the {name} {wanted[:40]!r}, and this is {here[name]!r}")
    fields.of("instructions", str)
    lacking = set(fields.items("features", str)) - set(here["features"])
    if lacking:
        raise other_target(fields, f"a CPU with {', '.join(sorted(lacking))[:80]}")


def other_target(fields: Fields, what: str) -> ArtifactError:
    """Return the error for code that was compiled for another machine."""
    return ArtifactError(
        f"the native code is for {what}",
        where=fields.where,
        remedy="run `fxcache compile` on this machine, or load the artifact without native=True",
    )
