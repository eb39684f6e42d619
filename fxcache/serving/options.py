"""Checks the options of a batcher and of its requests."""

from collections.abc import Sequence
from typing import Any

from fxcache.checks import is_number
from fxcache.errors import ConfigError
from fxcache.policies import Policy
from fxcache.serving.calls import WHERE

START = "Batcher.start"


def require_steps(num_steps: object) -> None:
    """Raise ConfigError if ``num_steps`` is no number of steps."""
    if type(num_steps) is not int or num_steps < 1:
        raise ConfigError(
            f"num_steps={num_steps!r} is no whole number of at least 1",
            where=START,
            remedy="pass the number of steps of this request",
        )


def require_options(linger: float, align: int) -> tuple[float, int]:
    """Return the options of rounds; raise ConfigError if they have values they cannot have."""
    if not is_number(linger) or linger < 0 or type(align) is not int or align < 0:
        raise ConfigError(
            f"linger={linger!r} and align={align!r} must be at least 0",
            where=WHERE,
            remedy="pass seconds as linger, and a number of rounds as align",
        )
    return linger, align


def sizes(max_batch: int, buckets: Sequence[int] | None) -> tuple[int, ...]:
    """Return the sizes of batches."""
    if type(max_batch) is not int or max_batch < 2:
        raise ConfigError(
            f"max_batch={max_batch!r} is no whole number of at least 2",
            where=WHERE,
            remedy="pass the greatest number of rows of a call",
        )
    powers = (2**power for power in range(1, max_batch.bit_length()))
    found = tuple(buckets or sorted({*powers, max_batch}))
    ascending = list(found) == sorted(set(found))
    if not ascending or any(type(n) is not int or n < 2 for n in found) or found[-1] != max_batch:
        raise ConfigError(
            f"buckets={buckets!r} do not ascend from 2 or more to max_batch={max_batch}",
            where=WHERE,
            remedy="pass sizes such as (2, 4, 8)",
        )
    return found


def require_same_values(policy: Any, known: Policy) -> None:
    """Raise ConfigError if ``policy`` needs values that the graphs for ``known`` do not have."""
    cause = ""
    if not isinstance(policy, Policy):
        cause = f"policy={policy!r} is no policy"
    elif policy.observes not in (None, known.observes):
        cause = f"{type(policy).__name__} observes another signal than {type(known).__name__}"
    elif policy.caches is not known.caches or policy.points not in (None, known.points):
        cause = f"{type(policy).__name__} caches other values than {type(known).__name__}"
    elif policy.default_forecast not in (None, known.default_forecast):
        cause = f"{type(policy).__name__} has another forecast than {type(known).__name__}"
    if cause:
        raise ConfigError(
            cause,
            where=START,
            remedy="pass a policy such as Uniform, or a Batcher of its own for this policy",
        )
