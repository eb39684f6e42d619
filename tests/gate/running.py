"""Runs pytest inside a test."""

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

OPTIONS = ("-W", "error", "-p", "no:cacheprovider")


def run_here(*arguments: str, options: Sequence[str] = OPTIONS) -> pytest.RunResult:
    """Run pytest in this process. Another one would import torch and Inductor for many seconds.

    Test files of the current folder are imported anew. ``pytester`` would forget all modules that
    were imported meanwhile, and import parts of torch twice.
    """
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = pytest.main([*options, "--capture=sys", "--import-mode=importlib", *arguments])
    for name, module in list(sys.modules.items()):
        if Path.cwd() in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]
    return pytest.RunResult(code, printed.getvalue().splitlines(), [], 0.0)
