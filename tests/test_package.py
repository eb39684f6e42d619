"""Tests the package: importing it starts nothing and hides no other package."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

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


def test_a_wheel_has_all_files_of_the_checkout(tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path)]
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".*", "bench", "build", "docs", "tests", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if name.startswith("fxcache/")}
    roots = {"fxcache": source / "fxcache", "fxcache/kernels": source / "kernels"}
    files = {
        f"{name}/{path.relative_to(root)}"
        for name, root in roots.items()
        for path in root.rglob("*")
        if path.is_file()
    }
    assert packed == files - {"fxcache/kernels/README.md"}


def test_kernels_import_no_higher_package():
    for file in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = [name for name in names if name.split(".")[0] == "fxcache"]
            assert all(name.startswith("fxcache.kernels.") for name in ours), (file, ours)


def test_every_public_name_is_documented():
    for name in fxcache.__all__:
        assert getattr(fxcache, name).__doc__, name


def test_each_error_has_a_unique_code():
    kinds = fxcache.FxcacheError.__subclasses__()
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes) == 11
    assert fxcache.FxcacheError.code not in codes
