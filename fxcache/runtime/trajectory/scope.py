"""Scopes: a session, a key or one call of a pipeline, which groups calls."""

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Scope:
    """A scope of calls. A call only continues a trajectory of its own scope.

    Attributes:
        vouched: Whether all its calls are guaranteed to be one run.
        closed: Whether no further call can belong to it.
        cut_short: Whether it was closed before its run had ended: by an error or by the user.
        keyed: False: the scope has no key.
    """

    vouched: bool = False
    closed: bool = False
    cut_short: bool = False
    keyed: bool = field(default=False, init=False)


@dataclass(frozen=True)
class KeyScope:
    """The scope of all sessions with one key. All its calls belong to one request."""

    key: Hashable
    vouched: bool = field(default=False, init=False)
    closed: bool = field(default=False, init=False)
    cut_short: bool = field(default=False, init=False)
    keyed: bool = field(default=True, init=False)


AnyScope = Scope | KeyScope
