"""An exported model, and a copy of it to change."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import fxcache
from fxcache._torch import MachineCode
from tests.deploy.natives import compiled_artifact
from tests.deploy.test_round_trip import denoised
from tests.once import made_once
from tests.plain import dit


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = fxcache.optimize(dit(2), fxcache.Uniform(3))
    denoised(model)
    return fxcache.export(model, tmp_path_factory.mktemp("exported") / "artifact")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "artifact"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with native code, which no test may change."""
    return made_once(tmp_path_factory, "compiled", compiled_artifact)


@pytest.fixture
def native_folder(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "artifact"))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[MachineCode]:
    """The machine code that ran, call by call."""
    found: list[MachineCode] = []
    run = MachineCode.run

    def noting(self: MachineCode, inputs: Any) -> list[Tensor]:
        found.append(self)
        return run(self, inputs)

    monkeypatch.setattr(MachineCode, "run", noting)
    return found
