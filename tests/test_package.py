"""The package as a guest: importing it starts nothing, and takes nobody's name."""

import subprocess
import sys
from pathlib import Path

import fxcache

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout


def test_importing_starts_nothing():
    loaded = python(
        "import torch, logging, warnings; before = set(__import__('sys').modules);"
        "filters, level = list(warnings.filters), logging.getLogger().level;"
        "import fxcache;"
        "assert list(warnings.filters) == filters;"
        "assert logging.getLogger().level == level and not logging.getLogger().handlers;"
        "assert not torch.cuda.is_initialized();"
        "print(*sorted(set(__import__('sys').modules) - before))"
    ).split()
    heavy = ("triton", "diffusers", "transformers", "torch._inductor", "PIL", "skimage")
    assert not [m for m in loaded if m.startswith(heavy)]


def test_a_real_package_named_kernels_wins_even_in_the_projects_root(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("REAL = True")
    code = f"import sys; sys.path[:] = ['{ROOT}', *sys.path, '{tmp_path}']; import kernels"
    assert python(f"{code}; print(kernels.REAL)").strip() == "True"


def test_every_public_name_is_documented():
    for name in fxcache.__all__:
        assert getattr(fxcache, name).__doc__, name


def test_errors_have_codes_of_their_own():
    kinds = fxcache.FxcacheError.__subclasses__()
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes) == 10
    assert fxcache.FxcacheError.code not in codes
