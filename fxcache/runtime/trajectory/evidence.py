"""The evidence for an attribution: how a call compares with the last call of a trajectory."""

from typing import NamedTuple

from fxcache.runtime.trajectory.position import Motion
from fxcache.runtime.trajectory.tensor_ref import Match


class Evidence(NamedTuple):
    """How a call compares with the last call of one trajectory.

    Attributes:
        motion: The motion from the trajectory's position to that of the call.
        conditioning: How the prompts compare, see ``Conditioning.summary``.
        same_kind: Whether shapes, dtypes, options and hooks are the same.
        same_name: Whether the pipeline gives the call the name of the trajectory.
        scheduled: Whether the positions are places in one schedule, not plain numbers.
        vouched: Whether a session or a pipeline guarantees that all its calls are one run.
        keyed: Whether a key guarantees that all its calls belong to one request.
        begun: Whether the trajectory has made exactly one call so far.
        drift: The greater distance between its latents at the last two steps; None if it was not
            measured.
        copy_of: The index of the candidate that it is a copy of; None if it is not a copy.
        restarted: Whether a run with the same prompt has begun since the trajectory's last call.
        busy: Whether the trajectory's last call is still under way.
        doubled: Whether two calls at one timestep had the same latent. Two callers whose latents
            began alike may then share the trajectory.
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
    doubled: bool = False

    @property
    def may_be_two(self) -> bool:
        """Whether two callers may share the trajectory. A key names the request of one."""
        return self.doubled and not self.keyed

    @property
    def trusted(self) -> bool:
        """Whether a session, a pipeline or a key guarantees that the calls belong together."""
        return self.vouched or self.keyed

    @property
    def proven(self) -> bool:
        """Whether more than the latent connects the call to the trajectory."""
        return self.scheduled or self.trusted
