"""The warnings of one optimised module. Each is given once, with a remedy."""

import sys
import warnings
from collections.abc import Sequence

from fxcache.effect import Effect, named
from fxcache.errors import FxcacheWarning, UnknownLengthError
from fxcache.policies.policy import FIRST_STEPS, LAST_STEPS, Policy
from fxcache.runtime.record import Run
from fxcache.runtime.trajectory.store import TrajectoryStore
from fxcache.runtime.trajectory.trajectory import Trajectory

MANY_AMBIGUOUS = 4  # warn after this many ambiguous calls …
AMBIGUOUS_SHARE = 0.34  # … if they are at least this share of all calls
MANY_CHANGES = 4  # warn after this many consecutive changes of a trajectory's conditioning
SEPARATE_REQUESTS = (
    "Open fxcache.session(model) around each sampling loop, or fxcache.session(model, key=...) "
    "around each call of requests that take turns."
)
CHANGING = (
    "Keep the prompt's tensors from call to call, or name inputs that belong to a step: "
    "CaptureConfig(step_inputs=...)."
)
NO_EFFECTS = "If nothing reads these values, remove the hooks or processors that store them."
NO_FASTER = "Results stay exact, but these calls are no faster."
UNPROTECTED = (
    "The last steps reuse cached values like the others, so that results differ more from those "
    "without caching."
)
INTERNAL_PACKAGES = ("fxcache.", "torch.")  # a warning does not point at frames of these


class Notices:
    """Gives warnings, and remembers which were given."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    @property
    def given(self) -> list[str]:
        """All warnings and notes so far, in full."""
        return list(self._given.values())

    def warn_attributions(self, store: TrajectoryStore, trajectory: Trajectory) -> None:
        """Warn if calls refresh because their trajectory is unclear.

        Args:
            store: The module's trajectories.
            trajectory: The trajectory of the current call, which refreshes.
        """
        counts = store.counts
        ambiguous = counts.ambiguous >= MANY_AMBIGUOUS
        if ambiguous and counts.ambiguous >= counts.calls * AMBIGUOUS_SHARE:
            self.warn("some calls may belong to any of several requests")
        if counts.lone_starts:
            self.warn("every call starts a run: nothing connects it to the call before")
        if counts.evicted:
            self.warn(
                f"more than {store.limit} requests take turns, so their cached values are dropped",
                "Raise CacheConfig(max_trajectories=...), or let fewer requests take turns.",
            )
        if trajectory.new_prompts >= MANY_CHANGES:
            self.warn(
                f"conditioning changes at every call: {', '.join(trajectory.new_inputs)}", CHANGING
            )

    def note(self, what: str, remedy: str, effect: str) -> None:
        """Add a note to the report, without a warning. The arguments are those of ``warn``."""
        self._given.setdefault(what, f"{what}. {effect} {remedy}")

    def warn(self, what: str, remedy: str = SEPARATE_REQUESTS, effect: str = NO_FASTER) -> None:
        """Warn, unless the same warning was given before.

        Args:
            what: What happened.
            remedy: A sentence that says what to do.
            effect: A sentence that says what follows.
        """
        if what in self._given:
            return
        self._given[what] = f"{what}. {effect} {remedy}"
        warnings.warn(self._given[what], FxcacheWarning, stacklevel=caller_level())

    def effects(self, effects: Sequence[Effect], lasting: bool) -> None:
        """Warn that the original runs the calls that change Python objects of the model.

        Args:
            effects: The changes of one call.
            lasting: Whether every call makes them. If not, a note in the report is enough.
        """
        if lasting:
            what = f"some calls change Python objects of the model: {named(effects)}"
            self.warn(f"{what}. The original model runs them", NO_EFFECTS)
        else:
            places = list(dict.fromkeys(effect.place for effect in effects))
            what = f"the first call changes settings of the model: {named(places)}"
            self.note(f"{what}. The original model ran it", "", "Later calls use graphs.")

    def warn_long_run(self, num_steps: int) -> None:
        """Warn that a run makes more calls than its session says."""
        self.warn(
            f"a run makes more calls than its session says: num_steps={num_steps}",
            "Pass the number of calls, which is twice that of the steps if the solver calls the "
            "model twice a step.",
            "The policy takes the calls beyond for steps after the end.",
        )

    def warn_uncalibrated(self, policy: Policy) -> None:
        """Warn if ``policy`` works better with measurements that it was not given."""
        if policy.uncalibrated:
            kind = type(policy).__name__
            self.warn(
                f"{kind} has no {policy.uncalibrated} that were fitted to this model",
                f"Fit them with fxcache.calibrate(model, fxcache.{kind}, sample), or with the "
                f"command `fxcache calibrate PIPELINE --policy {kind.lower()}`.",
                "The same threshold has another effect on each model.",
            )

    def warn_short_run(self, run: Run) -> None:
        """Warn if a run has ended in which the policy let no step reuse: it is too short.

        A run of a single step has nothing to reuse, whatever the policy.
        """
        steps, ends = run.steps[1:], (FIRST_STEPS, LAST_STEPS)
        if steps and all(s.decision.refresh and s.decision.reason in ends for s in steps):
            self.warn(
                f"a run of {len(run.steps)} steps is too short to reuse: the policy refreshes its "
                "first and last steps",
                "Take more steps, or leave the model as it is.",
            )

    def warn_unknown_length(self, error: UnknownLengthError, effect: str) -> None:
        """Warn that the run's length is unknown; the sentence ``effect`` says what follows."""
        self.warn(error.what, f"{error.remedy[0].upper()}{error.remedy[1:]}.", effect)


def caller_level() -> int:
    """Return the ``stacklevel`` of the line that called the module, for the caller's warning."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith(INTERNAL_PACKAGES):
        frame, level = frame.f_back, level + 1
    return level
