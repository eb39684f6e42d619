"""Tests the attribution of calls from comparisons alone."""

from collections.abc import Sequence

import pytest

from fxcache.runtime.trajectory.attribution import (
    Attribution,
    Certainty,
    Verdict,
    attribute,
    chance_cosine,
    judge,
)
from fxcache.runtime.trajectory.evidence import Evidence
from fxcache.runtime.trajectory.latent import Likeness
from fxcache.runtime.trajectory.position import Motion
from fxcache.runtime.trajectory.tensor_ref import Match

NEXT = Evidence(Motion.NEXT)
NUMBER = Evidence(Motion.NEXT, scheduled=False)
MOVING = Evidence(Motion.NEXT, scheduled=False, drift=0.1)
AGAIN = Evidence(Motion.REPEAT)
NEAR, FAR, SAME = Likeness(0.999, 1024), Likeness(0.01, 1024), Likeness(1.0, 0)


def never(_: Sequence[int]) -> Sequence[Likeness]:
    raise AssertionError("latents are not read")


def attributed(*pairs: tuple[Evidence, Likeness]) -> Attribution:
    """Return the attribution for these likenesses of the candidates' latents."""
    return attribute([e for e, _ in pairs], lambda indices: [pairs[i][1] for i in indices])


def found(*pairs: tuple[Evidence, Likeness]) -> tuple[int | None, Certainty]:
    attribution = attributed(*pairs)
    return attribution.index, attribution.certainty


# Evidence that decides alone


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (NEXT, Verdict.YES),
        (NEXT._replace(conditioning=Match.REPLACED), Verdict.YES),
        (NEXT._replace(conditioning=Match.FOREIGN), Verdict.NO),
        (NEXT._replace(conditioning=Match.FOREIGN, keyed=True), Verdict.YES),
        (NEXT._replace(busy=True), Verdict.NO),
        (NEXT._replace(same_name=False), Verdict.NO),
        (NEXT._replace(same_kind=False), Verdict.YES),
        (NUMBER._replace(same_kind=False), Verdict.NO),
        (NUMBER, Verdict.MAYBE),
        (NUMBER._replace(vouched=True), Verdict.YES),
        (NUMBER._replace(keyed=True), Verdict.YES),
        (Evidence(Motion.SKIP), Verdict.MAYBE),
        (Evidence(Motion.SKIP, vouched=True), Verdict.YES),
        (Evidence(Motion.SKIP, same_kind=False, vouched=True), Verdict.NO),
        (AGAIN, Verdict.MAYBE),
        (AGAIN._replace(vouched=True), Verdict.MAYBE),
        (Evidence(Motion.UNKNOWN), Verdict.MAYBE),
        (Evidence(Motion.BACK, vouched=True), Verdict.NO),
        (Evidence(Motion.OTHER, keyed=True), Verdict.NO),
    ],
)
def test_the_evidence_gives_a_verdict(evidence, verdict):
    assert judge(evidence) is verdict


def test_the_next_place_of_one_schedule_needs_no_latent():
    assert attribute([NEXT], never) == Attribution(0, Certainty.CERTAIN)
    others = [NEXT._replace(conditioning=Match.FOREIGN), NEXT._replace(busy=True)]
    assert attribute([others[0], NEXT, others[1]], never).index == 1


def test_a_call_without_candidates_starts_a_trajectory():
    assert attribute([], never) == Attribution(None, Certainty.CERTAIN, "first call")
    back = Evidence(Motion.BACK)
    assert attribute([back], never).reason == "timesteps start over"
    foreign = back._replace(conditioning=Match.FOREIGN)
    assert attribute([foreign], never).reason == "first call"


def test_a_trajectory_of_the_same_kind_is_preferred():
    other = NEXT._replace(same_kind=False)
    assert attribute([other, NEXT, other], never) == Attribution(1, Certainty.CERTAIN)
    assert attribute([other], never).index == 0, "shapes may change in the middle of a run"


# Evidence that needs latents


def test_the_next_number_is_checked_by_its_latent():
    assert found((NUMBER, NEAR)) == (0, Certainty.BY_LATENT)
    assert found((NUMBER, FAR)) == (None, Certainty.BY_LATENT)


def test_a_distant_latent_begins_a_run():
    far = Likeness(0.35, 1024)
    assert attributed((NUMBER, far)) == Attribution(
        None, Certainty.AMBIGUOUS, "caller unknown: the next step"
    )
    assert found((NEXT, far), (NEXT, Likeness(0.3, 1024))) == (0, Certainty.AMBIGUOUS)


def test_a_long_step_of_the_latent_is_ambiguous():
    step = Likeness(0.95, 1024)
    assert found((NUMBER, step)) == (0, Certainty.AMBIGUOUS), "the second call may be a start"
    assert found((NUMBER._replace(drift=0.02), step)) == (0, Certainty.BY_LATENT)
    assert found((NUMBER._replace(drift=0.01), step)) == (0, Certainty.AMBIGUOUS)
    assert found((NUMBER._replace(vouched=True), step), (NEXT, FAR)) == (0, Certainty.BY_LATENT)
    assert attributed((NUMBER._replace(drift=0.02), step)).distance == pytest.approx(0.05)


def test_candidates_at_the_same_and_the_next_step_are_ambiguous():
    """It is a solver that calls twice a step, or another request with the same prompt."""
    assert found((AGAIN, NEAR), (NEXT, Likeness(0.99, 1024)))[1] is Certainty.AMBIGUOUS
    assert found((AGAIN, Likeness(0.99, 1024)), (NEXT, NEAR)) == (1, Certainty.BY_LATENT)
    assert found((AGAIN, NEAR), (NEXT, FAR)) == (0, Certainty.BY_LATENT)


def test_the_closest_of_several():
    assert found((NEXT, FAR), (NEXT, NEAR)) == (1, Certainty.BY_LATENT)
    assert found((NEXT, NEAR), (NEXT, FAR)) == (0, Certainty.BY_LATENT)
    assert found((NEXT, Likeness(0.9, 1024)), (NEXT, NEAR)) == (1, Certainty.BY_LATENT)
    assert found((NEXT, FAR), (NEXT, FAR)) == (None, Certainty.BY_LATENT)


def test_not_clearly_the_closest():
    close = Likeness(0.9985, 1024)
    assert found((NEXT, close), (NEXT, NEAR)) == (1, Certainty.AMBIGUOUS)
    assert found((NEXT, NEAR), (NEXT, close)) == (0, Certainty.AMBIGUOUS)


def test_the_later_of_two_equal_latents_gets_the_call():
    assert found((NEXT, NEAR), (NEXT, NEAR)) == (1, Certainty.BY_LATENT)


def test_small_latents_prove_nothing():
    likely = Likeness(0.7, 32)
    assert chance_cosine(32) > 0.8
    assert found((MOVING, likely)) == (None, Certainty.BY_LATENT)
    assert found((MOVING, Likeness(0.7, 1024))) == (0, Certainty.BY_LATENT)
    assert found((MOVING, Likeness(0.9, 2)))[0] is None


def test_random_latents_rarely_exceed_the_chance_cosine():
    assert chance_cosine(1) == chance_cosine(2) == 1
    assert chance_cosine(1024) == pytest.approx(0.2, abs=0.01)
    assert all(chance_cosine(n) > chance_cosine(n + 1) for n in range(3, 200))


def test_the_same_prompt_is_preferred_to_a_new_one():
    replaced = NEXT._replace(conditioning=Match.REPLACED)
    equal = NEXT._replace(conditioning=Match.EQUAL)
    assert found((replaced, NEAR), (equal, NEAR))[0] == 1
    assert found((equal, NEAR), (replaced, NEAR))[0] == 0
    assert found((replaced, NEAR), (equal, FAR))[0] == 0, "but not before a latent"


def test_with_a_key_a_deleted_prompt_is_preferred():
    gone = NEXT._replace(conditioning=Match.REPLACED, keyed=True)
    alive = gone._replace(conditioning=Match.FOREIGN)
    assert found((gone, NEAR), (alive, NEAR)) == (0, Certainty.BY_LATENT)
    assert found((alive, NEAR), (gone, NEAR)) == (1, Certainty.BY_LATENT)


def test_the_next_step_is_preferred_to_a_skip():
    skip, behind = Evidence(Motion.SKIP), Likeness(0.9985, 1024)
    assert found((skip, behind), (NEXT, NEAR)) == (1, Certainty.BY_LATENT)
    assert found((skip, NEAR), (NEXT, behind)) == (0, Certainty.AMBIGUOUS)
    assert found((NEXT, behind), (NEXT, NEAR)) == (1, Certainty.AMBIGUOUS)


# Timesteps that repeat


def test_a_step_with_another_latent_is_another_trajectory():
    assert found((AGAIN, FAR)) == (None, Certainty.BY_LATENT)
    assert found((AGAIN, Likeness(0.7, 1024))) == (None, Certainty.BY_LATENT)
    assert found((AGAIN, NEAR)) == (0, Certainty.BY_LATENT), "a solver that calls twice a step"


def test_a_step_with_the_same_latent_is_another_call_of_that_step():
    assert found((AGAIN, SAME)) == (None, Certainty.BY_LATENT)
    unknown = Evidence(Motion.UNKNOWN)
    assert found((unknown, SAME))[0] is None
    assert found((unknown, NEAR))[0] == 0


def test_rounded_numbers_may_repeat():
    number = AGAIN._replace(scheduled=False)
    assert found((number, NEAR)) == (0, Certainty.BY_LATENT)
    assert found((number, SAME)) == (0, Certainty.AMBIGUOUS)
    assert found((number._replace(vouched=True), SAME)) == (0, Certainty.BY_LATENT)
    other_half = number._replace(conditioning=Match.REPLACED)
    assert found((other_half, SAME))[0] is None, "guidance with a prompt made anew"


def test_a_run_sampled_again_from_the_same_seed():
    old = AGAIN._replace(scheduled=False, restarted=True)
    assert found((old, SAME), (MOVING, NEAR)) == (1, Certainty.BY_LATENT)
    assert found((old, SAME))[0] is None
    begun = AGAIN._replace(scheduled=False, begun=True)
    assert found((begun, SAME))[0] is None
    assert found((begun._replace(vouched=True), SAME)) == (0, Certainty.BY_LATENT)


def test_a_run_may_begin_with_the_latent_of_a_single_call():
    begun = NUMBER._replace(begun=True)
    assert found((begun, SAME)) == (None, Certainty.BY_LATENT)
    assert found((NUMBER, SAME)) == (0, Certainty.BY_LATENT)
    assert found((begun, NEAR)) == (0, Certainty.BY_LATENT)
    assert found((begun, SAME), (begun, SAME)) == (1, Certainty.BY_LATENT), "it never moves"


def test_after_two_calls_with_one_latent_another_latent_may_be_another_callers():
    again = Evidence(Motion.REPEAT, scheduled=False, vouched=True)
    doubled = again._replace(doubled=True)
    assert found((again, NEAR)) == (0, Certainty.BY_LATENT)
    assert found((doubled, NEAR)) == (0, Certainty.AMBIGUOUS)
    assert found((doubled, SAME)) == (0, Certainty.BY_LATENT)
    assert found((doubled._replace(keyed=True), NEAR)) == found((again._replace(keyed=True), NEAR))
    assert found((NUMBER._replace(vouched=True, doubled=True), NEAR)) == (0, Certainty.CERTAIN)


def test_a_run_that_another_has_followed_may_be_over():
    again = Evidence(Motion.REPEAT, scheduled=False)
    assert found((again, NEAR)) == (0, Certainty.BY_LATENT)
    assert found((again._replace(restarted=True), NEAR)) == (0, Certainty.AMBIGUOUS)
