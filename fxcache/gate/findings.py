"""What a gate found about each value."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Status(Enum):
    """Whether a value passed."""

    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"  # the times vary too much to tell; does not block
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One value that is not as expected.

    Attributes:
        tier: The tier of the value: ``"exact"``, ``"ratios"`` or ``"advisory"``.
        entry: The path of the value in the expected file.
        status: Whether it blocks.
        message: What was expected and what was measured.
        cause: An explanation; empty if there is none.
    """

    tier: str
    entry: str
    status: Status
    message: str
    cause: str = ""

    @property
    def text(self) -> str:
        """The finding in one line."""
        parts = (self.entry, self.message, self.cause)
        return " ".join(": ".join(filter(None, parts)).split())

    def to_dict(self) -> dict[str, Any]:
        """Describe the finding as JSON can hold it."""
        return {**vars(self), "status": self.status.value}
