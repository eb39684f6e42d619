"""The cuts that the tuner tries, the policy of a solution, and the speed that none can exceed."""

from collections.abc import Mapping, Sequence
from math import ceil

from fxcache.errors import CutError
from fxcache.partition.cut import Cut
from fxcache.partition.request import One
from fxcache.policies import Scheduled
from fxcache.tuning.solve import Solution

LEAST_SAVED = 0.2  # cuts that save a smaller share of the FLOPs are not tried


def candidates(cuts: Sequence[Cut], most: int) -> list[Cut]:
    """At most ``most`` of the cuts that save enough, sorted by the FLOPs of a reuse step."""
    saving = sorted((c for c in cuts if c.share_saved >= LEAST_SAVED), key=lambda c: c.reuse_flops)
    if len(saving) <= most:
        return saving
    if most == 1:
        return saving[:1]
    picked = {round(i * (len(saving) - 1) / (most - 1)) for i in range(most)}
    return [saving[i] for i in sorted(picked)]


def scheduled(solution: Solution) -> tuple[Scheduled, list[One]]:
    """The policy and the cuts of a solution."""
    names = tuple(dict.fromkeys(cut for cut in solution.reused if cut))
    reused = tuple((cut,) if cut else () for cut in solution.reused)
    return Scheduled(names=names, reused=reused), list(names)


def cheapest(cuts: Sequence[Cut]) -> float:
    """Return the least FLOPs of a reuse step, as a share of a full step; 0 if there is no cut."""
    return min((cut.reuse_flops / cut.full_flops for cut in cuts), default=0.0)


def require_reachable(
    speedup: float | None, reuse: float, gaps: int, steps: int | None = None
) -> None:
    """Check that some schedule may reach a speed-up: one with the fewest refreshes.

    Args:
        speedup: The least speed-up, from FLOPs; None if any will do.
        reuse: The least FLOPs of a reuse step, as a share of those of a full step; 0 if unknown.
        gaps: The number of steps over which a value may be reused.
        steps: The number of calls of a run; None if it is unknown.

    Raises:
        CutError: No schedule reaches the speed-up.
    """
    if speedup is None:
        return
    refreshed = fewest_refreshes(gaps, steps) / steps if steps else 1 / (gaps + 1)
    highest = 1 / (refreshed + (1 - refreshed) * reuse)
    if speedup <= highest:
        return
    raise CutError(
        f"no schedule is {speedup:g} times as fast: one that refreshes every {gaps + 1} steps and "
        f"reuses most is {highest:.2f} times as fast",
        where="tune",
        remedy="pass a smaller speed-up, or let values be reused over more steps "
        f"(gaps={gaps}; --gaps on the command line)",
    )


def require_affordable(
    budget_ms: float | None, times_ms: Sequence[float], gaps: int, steps: int
) -> None:
    """Check that some schedule may take this little time: one whose reuse steps take none.

    Args:
        budget_ms: The greatest time of all denoiser calls in a run; None if any will do.
        times_ms: The times of some full steps, in milliseconds.
        gaps: The number of steps over which a value may be reused.
        steps: The number of calls of a run, or of those so far.

    Raises:
        CutError: No schedule takes this little time.
    """
    if budget_ms is None or not times_ms:
        return
    least_ms = fewest_refreshes(gaps, steps) * min(times_ms)
    if budget_ms < least_ms:
        raise CutError(
            f"no schedule takes {budget_ms:g} ms a run: refreshes alone, at least one in "
            f"{gaps + 1} steps, take {least_ms:.2f} ms",
            where="tune",
            remedy="pass a greater budget, or let values be reused over more steps "
            f"(gaps={gaps}; --gaps on the command line)",
        )


def require_slower(budget_ms: float | None, name: str, steps: int, full_ms: float) -> None:
    """Check that a run without caching takes more time than the budget.

    Args:
        budget_ms: The greatest time of all denoiser calls in a run; None if any will do.
        name: The name of the model's class.
        steps: The number of calls of a run.
        full_ms: The time of a full step, in milliseconds.

    Raises:
        CutError: It takes no more.
    """
    if budget_ms is not None and steps * full_ms <= budget_ms:
        raise CutError(
            f"{name} already takes less than {budget_ms:g} ms a run",
            where="tune",
            remedy=f"pass a smaller budget: a step takes {full_ms:.2f} ms",
        )


def fewest_refreshes(gaps: int, steps: int) -> int:
    """Return the least number of refreshes in a run."""
    return ceil(steps / (gaps + 1))


def full_shares(cuts: Mapping[str, Cut]) -> dict[str, float]:
    """Return the FLOPs of a reuse step of each cut, as a multiple of those of a full step."""
    full = next(iter(cuts.values())).full_flops
    return {name: cut.reuse_flops / full for name, cut in cuts.items()}
