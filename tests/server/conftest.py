"""Pipelines that a server can load, and artifacts of their denoisers."""

from pathlib import Path

import pytest

from fxcache.cli import main
from tests.once import made_once
from tests.server.processes import MODEL


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled U-Net for any number of rows. No test may change it."""
    return made_once(tmp_path_factory, "served", lambda folder: export(MODEL, folder)) / "unet"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small ``pipeline``, and its ``unet`` for any number of rows."""
    return made_once(tmp_path_factory, "served-small", write_small)


def write_small(folder: Path) -> None:
    from tests import tiny

    tiny.pipeline().save_pretrained(folder / "pipeline")
    export(folder / "pipeline", folder)


def export(pipeline: Path, folder: Path) -> None:
    command = ["export", str(pipeline), "--prompt", "red apple", "--steps", "4", "--interval", "3"]
    assert main([*command, "--batched", "--out", str(folder)]) == 0
