"""What vouches that calls belong together: a session, a key, one call of a pipeline."""

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Scope:
    """Trajectories are told apart within one scope; values never pass from one to another.

    Attributes:
        vouched: Whether all its calls are one run.
        closed: Whether no further call can belong to it.
    """

    vouched: bool = False
    closed: bool = False
    keyed: bool = field(default=False, init=False)


@dataclass(frozen=True)
class KeyScope:
    """The scope of all sessions with one key: all its calls are one request's."""

    key: Hashable
    vouched: bool = field(default=False, init=False)
    closed: bool = field(default=False, init=False)
    keyed: bool = field(default=True, init=False)


AnyScope = Scope | KeyScope
