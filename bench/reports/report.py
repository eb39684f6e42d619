"""A public report, and what tries its situation with fxcache."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["issues", "pull"]


@dataclass(frozen=True)
class PublicReport:
    """A report of trouble with a cache, by a user of it.

    Attributes:
        repository: Where it was written, as ``owner/name``.
        number: The number of the thread.
        situation: What the user did, and what happened.
        attempt: Does the same with fxcache. Returns what does not hold, one line each.
        here: What holds with fxcache if ``attempt`` returns nothing.
        limit: What fxcache does not do well there; empty if nothing.
        mended: What failed with fxcache at first, and the test of it; empty if nothing did.
        kind: Whether the thread is an issue or a pull request.
    """

    repository: str
    number: int
    situation: str
    attempt: Callable[[], list[str]]
    here: str
    limit: str = ""
    mended: str = ""
    kind: Kind = "issues"

    @property
    def name(self) -> str:
        return f"{self.repository}#{self.number}"

    @property
    def address(self) -> str:
        return f"https://github.com/{self.repository}/{self.kind}/{self.number}"
