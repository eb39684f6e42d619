"""Compile every kernel ahead of time, without a GPU, and read its resources from the binary.

``python -m fxcache.kernels.binaries`` prints the resources as JSON. The expected resources of each
kernel are in its folder, in ``binaries.json``. ``--write`` updates these files.
"""

import argparse
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fxcache.kernels.launches import Launch, Wrap, launches_of

HERE = Path(__file__).parent
EXPECTED = "binaries.json"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int8: "*i8",
    torch.uint8: "*u8",
}  # fmt: skip
ALIGNED = 16  # Triton specialises on addresses and integers that are multiples of this
WIDTHS = {
    "128": 128, "dwordx4": 128, "dwordx3": 96, "64": 64, "dwordx2": 64,
    "U16": 16, "ushort": 16, "short": 16, "U8": 8, "ubyte": 8,
}  # fmt: skip
# In Triton's IR: an address plus a 32-bit offset, and a constant.
SHORT_OFFSET = re.compile(r"tt\.addptr %\w+, (%\w+) : .*, (?:tensor<[\dx]+x)?i32\b")
CONSTANT = re.compile(r"(%\w+) = arith\.constant")


def source_of(launch: Launch) -> ASTSource:
    """Return the source that Triton would compile for this launch on a GPU."""
    fixed = {n: v for n, v in launch.arguments.items() if v is None or (type(v) is int and v == 1)}
    names = launch.kernel.arg_names
    constants = {**launch.constants, **fixed}
    constants = {name: value for name, value in constants.items() if name in names}
    variable = [name for name in names if name not in constants]
    types = {name: typed(launch.arguments[name]) for name in variable}
    aligned = [name for name in variable if is_aligned(launch.arguments[name])]
    return ASTSource(
        launch.kernel,
        {name: types.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", ALIGNED]] for name in aligned},
    )


def typed(value: Any) -> str:
    """Return Triton's name of an argument's type."""
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if abs(value) < 2**31 else "i64"


def is_aligned(value: Any) -> bool:
    """Return whether Triton knows that ``value`` is aligned. Tensors are: torch aligns to 512 B."""
    return isinstance(value, Tensor) or (isinstance(value, int) and value % ALIGNED == 0)


def resources(launch: Launch, target: GPUTarget) -> dict[str, int]:
    """Compile a launch, and read its resources from the machine code.

    Returns:
        ``registers`` and ``spills`` of a thread (spills in bytes on NVIDIA, in registers on AMD),
        ``shared`` bytes of a block, the widest ``loads`` and ``stores`` in bits, and
        ``short_offsets``, the number of addresses with 32-bit offsets, which overflow at 2³¹
        elements.
    """
    names = launch.kernel.arg_names
    options = {name: value for name, value in launch.constants.items() if name not in names}
    compiled = triton.compile(source_of(launch), target=target, options=options)
    found = read_hsaco(compiled) if target.backend == "hip" else read_cubin(compiled)
    code = compiled.asm["ttir"]
    constants = set(CONSTANT.findall(code))
    short = sum(offset not in constants for offset in SHORT_OFFSET.findall(code))
    return {**found, "shared": compiled.metadata.shared, "short_offsets": short}


def read_cubin(compiled: Any) -> dict[str, int]:
    usage, code = (disassembled(compiled.asm["cubin"], flag) for flag in ("-res-usage", "-sass"))
    return {
        "registers": int(*re.findall(r"REG:(\d+)", usage)),
        "spills": int(*re.findall(r"STACK:(\d+)", usage)),
        "loads": widest(re.findall(r"\bLDG\.[\w.]+", code)),
        "stores": widest(re.findall(r"\bSTG\.[\w.]+", code)),
    }


def disassembled(cubin: bytes, flag: str) -> str:
    """Return the output of cuobjdump, which comes with Triton."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, flag, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout


def read_hsaco(compiled: Any) -> dict[str, int]:
    """Read the resources from the assembly of the binary, and from its metadata."""
    code = compiled.asm["amdgcn"]
    return {
        "registers": int(*re.findall(r"\.vgpr_count:\s*(\d+)", code)),
        "spills": sum(map(int, re.findall(r"\.[sv]gpr_spill_count:\s*(\d+)", code))),
        "loads": widest(re.findall(r"\b(?:global|buffer)_load_\w+", code)),
        "stores": widest(re.findall(r"\b(?:global|buffer)_store_\w+", code)),
    }


def widest(instructions: Sequence[str]) -> int:
    """Return the bits that the widest of ``instructions`` moves for a thread."""
    return max(map(width, instructions))


def width(instruction: str) -> int:
    """Return the bits that ``LDG.E.128.CONSTANT`` or ``global_load_dwordx4`` moves for a thread."""
    words = re.split(r"[._]", instruction)
    return next((bits for word, bits in WIDTHS.items() if word in words), 32)


def found(name: str) -> dict[str, Any]:
    """Return the resources of the kernels in folder ``name``, by example, kernel and target."""
    return {
        case: {
            launch.kernel.__name__: {t: resources(launch, target) for t, target in TARGETS.items()}
            for launch in launches
        }
        for case, launches in launches_by_case(name).items()
    }


def sources_digest(name: str) -> str:
    """Return a digest of the code that determines the kernels in folder ``name``, and of Triton.

    While it is the same, the resources are the same, without compiling the kernels again.
    """
    files = [*sorted((HERE / name).glob("*.py")), HERE / "launches.py", Path(__file__)]
    content = b"".join(file.read_bytes() for file in files) + triton.__version__.encode()
    return hashlib.sha256(content).hexdigest()


def launches_by_case(name: str) -> dict[str, list[Launch]]:
    """Return the launches of the kernels in folder ``name``, by example."""
    examples = import_module(f"fxcache.kernels.{name}.examples")
    cases = {case: inputs("meta") for case, inputs in examples.CASES.items()}
    return {
        case: launches_of(partial(called, examples.run, inputs)) for case, inputs in cases.items()
    }


def called(run: Callable[..., object], inputs: tuple[Any, ...], wrap: Wrap) -> object:
    return run(wrap, *inputs)


def main() -> None:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("--write", action="store_true", help="update the expected resources")
    arguments = top.parse_args()
    everything = {}
    for folder in sorted(file.parent for file in HERE.glob("*/examples.py")):
        kernels = {
            "triton": triton.__version__,
            "sources": sources_digest(folder.name),
            "examples": found(folder.name),
        }
        everything[folder.name] = kernels
        if arguments.write:
            text = json.dumps(kernels, indent=1)
            (folder / EXPECTED).write_text(text + "\n", encoding="utf-8")
    print(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
