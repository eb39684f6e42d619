"""How a call compares with the last call of one trajectory."""

from typing import NamedTuple

from fxcache.runtime.trajectory.position import Motion
from fxcache.runtime.trajectory.tensor_ref import Match


class Evidence(NamedTuple):
    """How a call compares with the last call of one trajectory.

    Attributes:
        motion: From the trajectory's position to the call's.
        conditioning: How alike the prompts are, see ``Conditioning.summary``.
        same_kind: Whether shapes, dtypes, options and hooks are the same.
        same_name: Whether the pipeline gives both the same name.
        scheduled: Whether the positions are places in one schedule, not values of their own.
        vouched: Whether a session or a pipeline says that all its calls are one run.
        keyed: Whether a key says that all its calls are one request, whatever they are given.
        begun: Whether the trajectory has made one call so far.
        drift: The greater of the distances by which its latent moved at the last two steps, where
            these were measured.
        copy_of: The number of the candidate that it is a copy of.
        restarted: Whether a run with the same prompt has begun since the trajectory's last call.
        busy: Whether the trajectory's last call is still under way.
    """

    motion: Motion
    conditioning: Match = Match.SAME
    same_kind: bool = True
    same_name: bool = True
    scheduled: bool = True
    vouched: bool = False
    keyed: bool = False
    begun: bool = False
    drift: float | None = None
    copy_of: int | None = None
    restarted: bool = False
    busy: bool = False

    @property
    def trusted(self) -> bool:
        """Whether the caller says that its calls belong together."""
        return self.vouched or self.keyed

    @property
    def proven(self) -> bool:
        """Whether more than the latent ties the call to the trajectory."""
        return self.scheduled or self.trusted
