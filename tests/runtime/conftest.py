"""Fixtures of the tests of the runtime."""

import pytest

from fxcache.runtime import offload
from tests.runtime.offloaded import ELSEWHERE, Host


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A device that stands for the host while weights are offloaded."""
    simulated = Host()
    monkeypatch.setattr(offload, "HOST", ELSEWHERE)
    monkeypatch.setattr(offload, "move", simulated.move)
    monkeypatch.setattr(offload, "copy_to", simulated.copy_to)
    return simulated
