"""Runs Python in another process, which imports what this one can."""

import os
import subprocess
import sys


def run_python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run this Python with these arguments, and return its status and output.

    It has the path of this process: fxcache may be a checkout that only this path names.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(  # noqa: S603
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
