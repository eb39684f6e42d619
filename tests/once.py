"""Things that take long to make: one process of the test run makes them for all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that ``make`` has filled, in this process or in another of this run.

    Args:
        factory: The factory of temporary folders.
        name: Identifies the folder.
        make: Fills a new folder, whose parent exists.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder inside that of the run
        root = root.parent
    folder = root / f"{name}-shared"
    with FileLock(root / f"{name}.lock"):
        if not folder.exists():
            unfinished = root / f"{name}-unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder
