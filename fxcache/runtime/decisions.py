"""Asks the policy what a step reuses, with an answer for runs whose length is unknown."""

from fxcache.errors import UnknownLengthError
from fxcache.policies import Policy
from fxcache.policies.policy import LENGTH_UNKNOWN
from fxcache.runtime.notices import NO_FASTER, UNPROTECTED, Notices
from fxcache.runtime.step_context import StepContext
from fxcache.step import Decision


def decided(policy: Policy, step: StepContext, notices: Notices, recorded: bool) -> Decision:
    """Return the decision of one step.

    Args:
        policy: The policy. If something forces a refresh, it is not asked.
        step: The step.
        notices: Receives a warning if the decision needs the run's length, and it is unknown.
        recorded: Whether a recorder receives the step.

    Raises:
        UnknownLengthError: The step is recorded, and its decision needs the run's length.
    """
    if step.forced:
        return Decision(True, step.forced)
    coefficients, asks_policy = step.variants.coefficients, False
    try:
        if coefficients:
            coefficients.require(step.now)
        asks_policy = True
        return policy.decide(step.now)
    except UnknownLengthError as error:
        if recorded:
            raise
        refresh = Decision(True, LENGTH_UNKNOWN)
        decision = policy.without_length(step.now) if asks_policy else refresh
        notices.warn_unknown_length(error, NO_FASTER if decision.refresh else UNPROTECTED)
        return decision
