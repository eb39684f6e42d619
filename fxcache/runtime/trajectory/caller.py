"""Who calls, so far as it is known before the trajectory is."""

from collections.abc import Hashable
from typing import NamedTuple

from fxcache.runtime.context import Announcement
from fxcache.runtime.trajectory.position import Place
from fxcache.runtime.trajectory.scope import AnyScope


class Caller(NamedTuple):
    """What is known of who calls, besides the call itself.

    Attributes:
        scope: What vouches for the call.
        kind: Shapes, dtypes and options of the call, and the hooks that are set.
        name: That the pipeline gives the trajectory; empty if it gives none.
        place: Where the pipeline stands in its schedule, if it says so.
    """

    scope: AnyScope
    kind: Hashable
    name: str = ""
    place: Place | None = None


def caller_of(
    scope: AnyScope, kind: Hashable, announcement: Announcement | None, place: Place | None
) -> Caller:
    """The caller; what the pipeline announces for this call goes before its scheduler's place."""
    if announcement is None:
        return Caller(scope, kind, "", place)
    if announcement.step_index is not None:
        place = Place(announcement.step_index, announcement.num_steps)
    return Caller(scope, kind, announcement.name, place)
