"""Artifacts with native code, for tests. Compiling takes half a minute, so each is made once."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor

import fxcache
from fxcache.cli import main
from fxcache.deploy.loaded import LoadedModel
from tests.deploy.tampering import Edit
from tests.deploy.test_round_trip import BATCH, STEPS, denoised
from tests.plain import dit

# Machine code adds in another order than ATen: the greatest error over the greatest value.
MOST = 4e-6
ANY_BATCH = fxcache.CaptureConfig(dynamic=BATCH)


def artifact(folder: Path) -> Path:
    """Write an artifact of a small transformer for any batch."""
    model = fxcache.optimize(dit(2), fxcache.Uniform(3), capture=ANY_BATCH)
    denoised(model)
    return fxcache.export(model, folder)


def compiled_artifact(folder: Path) -> Path:
    """Write an artifact with native code. Its kernels are optimised, what calls them is not."""
    from torch._inductor import config

    made = artifact(folder)
    options = config.patch("aot_inductor.compile_wrapper_opt_level", "O0")
    with options, redirect_stderr(StringIO()) as said:
        assert main(["compile", str(made), "--steps", str(STEPS)]) == 0
    assert said.getvalue().splitlines() == [
        "compiling graph 1 of 2: full_0",
        "compiling graph 2 of 2: cached_skip_0",
    ]
    return made


def load_native(folder: Path, **options: Any) -> LoadedModel:
    """Load an artifact with its native code, which this machine has made itself."""
    return fxcache.load(folder, native=True, allow_unsigned=True, **options)


def edit_native(folder: Path, change: Edit) -> None:
    """Change the manifest of the native code in an artifact."""
    file = folder / "native" / "manifest.json"
    data = json.loads(file.read_bytes())
    change(data)
    file.write_text(json.dumps(data))


def digest_of_manifest(folder: Path) -> str:
    """Return the SHA-256 of an artifact's manifest."""
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def error_of(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the greatest error of any step, relative to the greatest value of the step."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
