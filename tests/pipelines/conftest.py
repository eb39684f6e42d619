"""A fixture for tests of quantised models."""

import pytest

from tests import plain

WIDTH = 64  # 4-bit layers of bitsandbytes need it


@pytest.fixture
def wide_dit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the DiT of ``tests.plain`` and its inputs have so many channels."""
    monkeypatch.setattr(plain, "WIDTH", WIDTH)
