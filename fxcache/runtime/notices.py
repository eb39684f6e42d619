"""Warnings of one optimised module: each is given once, with what to do."""

import sys
import warnings

from fxcache.errors import FxcacheWarning, UnknownLengthError
from fxcache.runtime.trajectory.store import TrajectoryStore
from fxcache.runtime.trajectory.trajectory import Trajectory

MANY_AMBIGUOUS = 4  # calls, and this share of all, that are worth a warning
AMBIGUOUS_SHARE = 0.34
MANY_CHANGES = 4  # of a trajectory's conditioning, in a row
TELL_APART = (
    "Open fxcache.session(model) around each sampling loop, or fxcache.session(model, key=...) "
    "around each call of requests that take turns."
)
CHANGING = (
    "Keep the prompt's tensors from call to call, or name inputs that belong to a step: "
    "CaptureConfig(step_inputs=...)."
)
NO_FASTER = "Results stay exact, but are no faster."
OURS = ("fxcache.", "torch.")  # packages whose frames a warning does not point at


class Notices:
    """What was warned of already, and what is worth a warning."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def of_callers(self, store: TrajectoryStore, trajectory: Trajectory) -> None:
        """Say so where calls refresh since it is unclear whose they are.

        Args:
            store: Of the module's trajectories.
            trajectory: That of the call at hand, which refreshes.
        """
        counts = store.counts
        ambiguous = counts.ambiguous >= MANY_AMBIGUOUS
        if ambiguous and counts.ambiguous >= counts.calls * AMBIGUOUS_SHARE:
            self.say("some calls may be another request's as well as the one's before")
        if counts.lone_starts:
            self.say("call after call starts a run: nothing ties it to the one before")
        if counts.evicted:
            self.say(
                f"more than {store.limit} requests take turns, and push each other out",
                "Raise CacheConfig(max_trajectories=...), or let fewer requests take turns.",
            )
        if trajectory.new_prompts >= MANY_CHANGES:
            self.say(
                f"conditioning changes at every call: {', '.join(trajectory.new_inputs)}", CHANGING
            )

    def say(self, what: str, remedy: str = TELL_APART, so: str = NO_FASTER) -> None:
        """Warn, unless that was done before.

        Args:
            what: What happened.
            remedy: What to do about it, a sentence.
            so: What follows from it, a sentence.
        """
        if what in self._said:
            return
        self._said.add(what)
        warnings.warn(f"{what}. {so} {remedy}", FxcacheWarning, stacklevel=caller_level())

    def of_length(self, error: UnknownLengthError, so: str) -> None:
        """Warn that the run's length is missing; ``so``: what follows from it, a sentence."""
        self.say(error.what, f"{error.remedy[0].upper()}{error.remedy[1:]}.", so)


def caller_level() -> int:
    """The ``stacklevel``, seen from the caller, of the line that called the module."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith(OURS):
        frame, level = frame.f_back, level + 1
    return level
