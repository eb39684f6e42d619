"""Sizes and load times of artifacts, beside the alternatives, for the bundled U-Net.

``python -m bench.artifacts`` writes the refresh and the reuse graph in four forms, and loads each
in new processes. Compiling the native code takes minutes.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import fxcache
from bench.output import run
from bench.trajectories import load
from fxcache.graph_inputs import InputKind
from fxcache.integrations.example_inputs import example_inputs

STEPS, PROCESSES = 20, 3
WEIGHTS = {".safetensors", ".bin"}  # suffixes of files that hold weights only


def optimized() -> tuple[nn.Module, dict[str, Any]]:
    """Return the bundled U-Net after one run, and its inputs."""
    unet = load().unet
    inputs = example_inputs(unet, batch=2)
    fxcache.optimize(unet, fxcache.Uniform(3), hoist=None)
    with torch.no_grad(), fxcache.session(unet, num_steps=STEPS):
        for t in range(4):
            unet(**{**inputs, "timestep": torch.tensor(900 - t)})
    return unet, inputs


def as_artifact(unet: nn.Module, inputs: dict[str, Any], folder: Path) -> None:
    del inputs
    fxcache.export(unet, folder)


def as_exported_programs(unet: nn.Module, inputs: dict[str, Any], folder: Path) -> None:
    """Save both graphs with torch.export, each with its weights."""
    folder.mkdir()
    table = fxcache.step_table(unet, STEPS)
    cache: dict[int, torch.Tensor] = {}
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
    with torch.no_grad():
        table.run(0, tensors, cache)
        for name, variant in table.variants.items():
            cached = [cache[number] for number, _ in variant.signature.keys(InputKind.CACHED)]
            program = torch.export.export(variant.module, (*tensors, *cached), strict=False)
            torch.export.save(program, folder / f"{name}.pt2")


def as_onnx(unet: nn.Module, inputs: dict[str, Any], folder: Path) -> None:
    del inputs
    fxcache.export_onnx(unet, folder, num_steps=STEPS)


def as_native(unet: nn.Module, inputs: dict[str, Any], folder: Path) -> None:
    as_artifact(unet, inputs, folder)
    fxcache.compile_artifact(folder, num_steps=STEPS)


# How each form is written, the imports before the clock starts, and what is timed.
FORMS: dict[str, tuple[Callable[[nn.Module, dict[str, Any], Path], None], str, str]] = {
    "fxcache.export": (as_artifact, "import fxcache", "fxcache.load(folder)"),
    "the same, with native code": (
        as_native,
        "import fxcache",
        "fxcache.load(folder, native=True, allow_unsigned=True)",
    ),
    "fxcache.export_onnx, ONNX Runtime": (
        as_onnx,
        "import onnxruntime",
        "[onnxruntime.InferenceSession(file) for file in sorted(folder.glob('*.onnx'))]",
    ),
    "torch.export.save of both graphs": (
        as_exported_programs,
        "import torch",
        "[torch.export.load(file).module() for file in sorted(folder.glob('*.pt2'))]",
    ),
}


def measure() -> dict[str, Any]:
    """Return the bytes and the seconds of each form."""
    unet, inputs = optimized()
    found = {}
    for name, (write, imports, loading) in FORMS.items():
        with TemporaryDirectory() as parent:
            folder = Path(parent) / "written"
            write(unet, inputs, folder)
            files = [file for file in folder.rglob("*") if file.is_file()]
            weights = sum(file.stat().st_size for file in files if file.suffix in WEIGHTS)
            found[name] = {
                "weights_bytes": weights,
                "other_bytes": sum(file.stat().st_size for file in files) - weights,
                "load_seconds": median(
                    seconds_to_load(folder, imports, loading) for _ in range(PROCESSES)
                ),
            }
    return found


def seconds_to_load(folder: Path, imports: str, loading: str) -> float:
    """Return the seconds that ``loading`` takes in a new process, without its imports."""
    code = f"""
import json, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
{imports}
folder = Path({str(folder)!r})
started = time.perf_counter()
loaded = {loading}
print(json.dumps(time.perf_counter() - started))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    run(__doc__, measure)
