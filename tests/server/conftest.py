"""An artifact of the bundled U-Net that a server can load."""

from pathlib import Path

import pytest

from fxcache.cli import main
from tests.once import made_once
from tests.server.processes import MODEL


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled U-Net for any number of rows. No test may change it."""
    return made_once(tmp_path_factory, "served", export) / "unet"


def export(folder: Path) -> None:
    command = ["export", str(MODEL), "--prompt", "red apple", "--steps", "4", "--interval", "3"]
    assert main([*command, "--batched", "--out", str(folder)]) == 0
