"""What is known about the caller before the trajectory is found."""

from collections.abc import Hashable
from typing import NamedTuple

from fxcache.runtime.context import Announcement
from fxcache.runtime.trajectory.position import Place
from fxcache.runtime.trajectory.scope import AnyScope


class Caller(NamedTuple):
    """What is known about the caller, apart from the arguments of the call.

    Attributes:
        scope: The scope of the call: a session, a key, or one call of a pipeline.
        kind: A key of the shapes, dtypes and options of the call, and of the hooks.
        name: The name that the pipeline gives the trajectory; empty if it gives none.
        place: The position of the pipeline in its schedule; None if unknown.
    """

    scope: AnyScope
    kind: Hashable
    name: str = ""
    place: Place | None = None


def caller_of(
    scope: AnyScope, kind: Hashable, announcement: Announcement | None, place: Place | None
) -> Caller:
    """Return the caller. An announcement of the pipeline takes precedence over ``place``."""
    if announcement is None:
        return Caller(scope, kind, "", place)
    if announcement.step_index is not None:
        place = Place(announcement.step_index, announcement.num_steps)
    return Caller(scope, kind, announcement.name, place)
