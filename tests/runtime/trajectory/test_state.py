"""Tests the step of a call in its run, and why it must refresh."""

import pytest

from fxcache.runtime.trajectory.attribution import Certainty
from fxcache.runtime.trajectory.lengths import RunLengths, schedule_of
from fxcache.runtime.trajectory.position import Number, Place, Unknown
from fxcache.runtime.trajectory.state import (
    Event,
    State,
    advance,
    begin,
    ended,
    expected_steps,
    step_on,
)
from fxcache.runtime.trajectory.tensor_ref import Match


def test_a_run_begins():
    begun = begin(Place(3, 10), "first call")
    assert begun.refresh == "first call"
    assert begun.state.step == 0


def test_a_step_follows():
    state = begin(Place(0, 10), "").state
    for step in (1, 2, 3):
        following = advance(state, Event(Place(step, 10)))
        assert following.refresh == ""
        state = following.state
        assert state.step == step


def test_numbers_keep_their_direction():
    state = advance(begin(Number(5.0), "").state, Event(Number(3.0))).state
    assert state.direction == -1
    assert advance(state, Event(Number(3.0))).state.direction == -1
    assert advance(begin(Number(5.0), "").state, Event(Number(5.0))).state.direction == 0


STATE = State(Place(4, 10), step=4)


@pytest.mark.parametrize(
    ("state", "event", "reason"),
    [
        (STATE, Event(Place(5, 10)), ""),
        (STATE, Event(Place(5, 10), Match.EQUAL), ""),
        (STATE, Event(Place(5, 10), Match.REWRITTEN), "conditioning was written in place"),
        (STATE, Event(Place(5, 10), Match.REPLACED), "conditioning changed"),
        (STATE, Event(Place(5, 10), Match.FOREIGN), "conditioning changed"),
        (STATE, Event(Place(5, 10), certainty=Certainty.BY_LATENT), ""),
        (
            STATE,
            Event(Place(5, 10), certainty=Certainty.AMBIGUOUS, reason="caller unknown"),
            "caller unknown",
        ),
        (STATE._replace(complete=False), Event(Place(5, 10)), "the last call did not finish"),
        (STATE, Event(Place(7, 10)), "timesteps are left out"),
        (STATE._replace(stride=3), Event(Place(7, 10)), ""),
        (STATE._replace(stride=3), Event(Place(6, 10)), ""),
        (STATE._replace(stride=2), Event(Place(7, 10)), "timesteps are left out"),
        (STATE, Event(Place(4, 10)), ""),
    ],
)
def test_why_a_call_refreshes(state, event, reason):
    following = advance(state, event)
    assert following.refresh == reason
    assert following.state.step == 5
    assert following.state.complete


def test_a_call_records_its_stride():
    skipped = advance(STATE, Event(Place(7, 10)))
    assert (skipped.state.stride, skipped.repeats) == (3, False)
    again = advance(STATE, Event(Place(4, 10)))
    assert (again.state.stride, again.repeats) == (1, True)


@pytest.mark.parametrize("state", [STATE, STATE._replace(stride=3), STATE._replace(complete=False)])
@pytest.mark.parametrize("offset", [3, 4, 5, 6])
def test_the_fast_path_equals_the_general_rule(state, offset):
    plain, general = step_on(state, Place(offset, 10)), advance(state, Event(Place(offset, 10)))
    assert plain == (general if offset == 5 and state.complete else None)


def test_numbers_take_the_general_rule():
    assert step_on(State(Number(3.0), direction=-1), Number(2.0)) is None


def test_a_call_that_failed_costs_one_refresh():
    failed = STATE._replace(complete=False)
    following = advance(failed, Event(Place(5, 10))).state
    assert advance(following, Event(Place(6, 10))).refresh == ""


def test_the_remaining_steps_of_a_schedule_are_counted():
    assert expected_steps(State(Place(0, 10))) == 10
    assert expected_steps(State(Place(6, 10), step=2)) == 6
    assert expected_steps(State(Place(6, 10), step=3, stride=2)) == 5
    assert expected_steps(State(Place(5, 10), step=3, stride=2)) == 6, "the last one counts"
    assert expected_steps(State(Number(3.0))) is None
    assert expected_steps(State(Place(3, None))) is None
    assert [ended(State(Place(i, 3))) for i in range(3)] == [False, False, True]
    assert not ended(State(Unknown()))


# The number of calls of runs


def test_a_run_is_as_long_as_the_last_one_of_its_schedule():
    lengths, first = RunLengths(), Place(0, 20)
    schedule = schedule_of(first)
    assert lengths.expected(State(first), schedule) == 20
    lengths.record(State(Place(5, 20), step=5), schedule)
    assert lengths.expected(State(first), schedule) == 6
    assert lengths.expected(State(Place(5, 20), step=5), schedule) == 6
    assert lengths.expected(State(Place(6, 20), step=6), schedule) == 20, "it goes on beyond"
    assert lengths.expected(State(Place(0, 30)), schedule_of(Place(0, 30))) == 30
    assert lengths.expected(State(Place(6, 20)), schedule_of(Place(6, 20))) == 14, (
        "the second expert"
    )


def test_numbers_tell_their_length_from_the_second_run_on():
    lengths, first = RunLengths(), Number(1000.0)
    schedule = schedule_of(first)
    assert lengths.expected(State(first), schedule) is None
    lengths.record(State(Number(20.0), step=49), schedule)
    assert lengths.expected(State(first), schedule) == 50
    assert lengths.expected(State(Number(900.0)), schedule_of(Number(900.0))) is None


def test_a_warm_up_of_one_call_does_not_shorten_the_run_after_it():
    lengths, first = RunLengths(), Number(1000.0)
    schedule = schedule_of(first)
    lengths.record(State(first), schedule)
    assert lengths.expected(State(Number(900.0), step=1), schedule) is None


def test_a_failed_run_sets_no_length():
    lengths, first = RunLengths(), Place(0, 20)
    schedule = schedule_of(first)
    lengths.record(State(Place(3, 20), step=3, complete=False), schedule)
    assert lengths.expected(State(first), schedule) == 20


def test_a_plan_knows_its_schedules():
    lengths, first = RunLengths(), Place(0, 20)
    schedule = schedule_of(first)
    lengths.record(State(Place(5, 20), step=5), schedule)
    assert lengths.places() == [(20, 0, 6)]
    other = RunLengths()
    other.fix(lengths.places())
    other.record(State(Place(2, 20), step=2), schedule)
    assert other.expected(State(first), schedule) == 6, "a run that was broken off changes nothing"
