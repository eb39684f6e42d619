"""fxcache as a contender, and the model without caching."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import fxcache
from bench.peers.contender import FIRST_BLOCK_RULE, Attach, Contender, fit_threshold
from bench.peers.subject import Ask, Live, Subject, sample
from fxcache.calibration.plan import Plan
from fxcache.policies import Explicit, FirstBlock, Policy
from fxcache.tuning.tune import Tuner

PACKAGE = "fxcache"
NEARLY = 0.95  # of the speed-up that the list of steps would have if reuse were free
Options = Callable[[Subject, Ask], dict[str, Any]]


@contextmanager
def plain(subject: Subject, _: Ask) -> Iterator[Live]:
    yield Live(subject.model)


@contextmanager
def fewer_steps(subject: Subject, ask: Ask) -> Iterator[Live]:
    """Sample with as many steps as the others compute."""
    steps = len(ask.refreshed)
    yield Live(subject.model, steps=steps, setting=f"{steps} steps")


@contextmanager
def optimized(subject: Subject, policy: Policy, **options: Any) -> Iterator[Live]:
    """Optimise the model inside the block. Each run is a session."""
    model = fxcache.optimize(subject.model, policy, **options)

    try:
        yield Live(model, partial(session, model), setting=words(policy, options))
    finally:
        fxcache.restore(model)


def words(policy: Policy, options: dict[str, Any]) -> str:
    """Return the settings in words, without numbers that a calibration measured."""
    kept = {k: v for k, v in options.items() if k != "cut"}
    told = [type(policy).__name__, *(f"{k}={v!r}" for k, v in kept.items())]
    return ", ".join(told)


def listed(**options: Any) -> Attach:
    """Refresh the steps that are asked for, at the automatic cut."""
    return lambda subject, ask: optimized(subject, Explicit(ask.refreshed), **options)


def at_peers_cut(**options: Any) -> Attach:
    """Refresh the steps that are asked for, at the cut of the peers."""

    def attach(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
        return optimized(subject, Explicit(ask.refreshed), cut=subject.peers_cut, **options)

    return attach


def protected_ends(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
    """Use the default policy with the interval."""
    return optimized(subject, fxcache.ProtectedEnds(interval=ask.interval))


def policy_of(make: Callable[[Subject, Ask], Policy], **options: Any) -> Attach:
    """Use a policy that depends on the subject, at the cut of the peers."""

    def attach(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
        return optimized(subject, make(subject, ask), cut=subject.peers_cut, **options)

    return attach


@contextmanager
def first_block(subject: Subject, ask: Ask) -> Iterator[Live]:
    """Use First-Block Cache, with the threshold that refreshes as often as asked for."""
    threshold = fit_threshold(FIRST_BLOCK_RULE, subject, ask, partial(with_threshold, subject))
    with with_threshold(subject, threshold) as live:
        yield live


def with_threshold(subject: Subject, threshold: float) -> AbstractContextManager[Live]:
    return optimized(subject, FirstBlock(threshold))


_tuners: dict[str, Tuner] = {}


def tuned(subject: Subject, ask: Ask) -> AbstractContextManager[Live]:
    """Use the plan that the tuner finds for nearly the speed-up of the list of steps.

    It is tuned on a request that is not measured.
    """
    if subject.name not in _tuners:
        live = Live(subject.model)
        _tuners[subject.name] = Tuner(
            subject.model,
            lambda: subject.decode(sample(subject, live, ask, request=subject.spare)),
        )
    tuner = _tuners[subject.name]
    plan = tuner.plan(tuner.best(NEARLY * ask.steps / len(ask.refreshed)))
    return with_plan(subject, plan)


@contextmanager
def with_plan(subject: Subject, plan: Plan) -> Iterator[Live]:
    model = fxcache.optimize(subject.model, plan=plan)
    run = partial(session, model)
    try:
        yield Live(model, run, setting=f"plan, {type(plan.policy).__name__}")
    finally:
        fxcache.restore(model)


def session(model: Any, steps: int) -> AbstractContextManager[object]:
    opened: AbstractContextManager[object] = fxcache.session(model, num_steps=steps)
    return opened


PLAIN = Contender("no caching", "torch", plain)
FEWER = Contender("fewer steps", "torch", fewer_steps)
AUTOMATIC = Contender("fxcache, automatic cut", PACKAGE, listed())
TABLE = Contender('fxcache, automatic cut, hoist="table"', PACKAGE, listed(hoist="table"))
SAME_CUT = Contender("fxcache, the peers' cut", PACKAGE, at_peers_cut())
SAME_CUT_TABLE = Contender(
    'fxcache, the peers\' cut, hoist="table"', PACKAGE, at_peers_cut(hoist="table")
)
FIRST_BLOCK = Contender("fxcache, FirstBlock", PACKAGE, first_block)
DEFAULT = Contender("fxcache, the default policy", PACKAGE, protected_ends)
TUNED = Contender("fxcache tune", PACKAGE, tuned)
