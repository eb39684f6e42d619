"""Asks the policy what a step reuses, with an answer for runs whose length is unknown."""

from fxcache.errors import UnknownLengthError
from fxcache.policies import Policy
from fxcache.policies.policy import LENGTH_UNKNOWN
from fxcache.runtime.notices import NO_FASTER, UNPROTECTED, Notices
from fxcache.runtime.step_context import StepContext
from fxcache.step import Decision


class Decisions:
    """The decisions of one policy.

    Args:
        policy: The policy.
        notices: Receives a warning if the policy needs the length of a run, and it is unknown.
    """

    def __init__(self, policy: Policy, notices: Notices) -> None:
        self._policy, self._notices = policy, notices

    def decide(self, step: StepContext, recorded: bool) -> Decision:
        """Return the decision of one step.

        Args:
            step: The step. If something forces a refresh, the policy is not asked.
            recorded: Whether a recorder receives the step.

        Raises:
            UnknownLengthError: The step is recorded, and its decision needs the run's length.
        """
        if step.forced:
            return Decision(True, step.forced)
        coefficients = step.variants.coefficients
        try:
            if coefficients:
                coefficients.require(step.now)
        except UnknownLengthError as error:
            return self._without_length(error, Decision(True, LENGTH_UNKNOWN), recorded)
        try:
            return self._policy.decide(step.now)
        except UnknownLengthError as error:
            return self._without_length(error, self._policy.without_length(step.now), recorded)

    def _without_length(
        self, error: UnknownLengthError, decision: Decision, recorded: bool
    ) -> Decision:
        """Return ``decision`` with a warning; raise ``error`` if the step is recorded."""
        if recorded:
            raise error
        self._notices.warn_unknown_length(error, NO_FASTER if decision.refresh else UNPROTECTED)
        return decision
