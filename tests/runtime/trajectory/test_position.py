"""Tests the position of a call, and how it follows another one."""

import pytest
import torch

from fxcache.runtime.trajectory.position import (
    Element,
    Motion,
    Number,
    Place,
    Position,
    Unknown,
    direction_of,
    motion,
    position_of,
)

SCHEDULE = torch.arange(900, 0, -100)


def elements(schedule: torch.Tensor, *offsets: int) -> list[Element]:
    positions = [position_of(schedule[i]) for i in offsets]
    found = [p for p in positions if isinstance(p, Element)]
    assert len(found) == len(positions)
    return found


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0, 1, Motion.NEXT),
        (3, 4, Motion.NEXT),
        (0, 2, Motion.SKIP),
        (4, 4, Motion.REPEAT),
        (4, 3, Motion.BACK),
        (8, 0, Motion.BACK),
    ],
)
def test_places_in_a_schedule(first, second, expected):
    last, now = elements(SCHEDULE, first, second)
    assert motion(last, now, 0) is expected
    assert motion(Place(first, 9), Place(second, 9), 0) is expected


def lengths(place: Place) -> list[int | None]:
    """Return the lengths of all elements of the schedule, with this place."""
    found = [position_of(t, place) for t in SCHEDULE]
    return [p.length for p in found if isinstance(p, Element)]


def test_the_pipeline_may_leave_out_the_last_timesteps():
    assert lengths(Place(3, 8)) == [9, 9, 9, 8, 9, 9, 9, 9, 9]
    assert lengths(Place(3, 12)) == lengths(Place(3, None)) == [9] * 9


def test_another_schedule():
    (mine,), (other,) = elements(SCHEDULE, 1), elements(SCHEDULE.clone(), 2)
    assert motion(mine, other, 0) is Motion.OTHER
    gone = SCHEDULE.clone()
    (held,) = elements(gone, 1)
    del gone
    assert motion(held, other, 0) is Motion.OTHER


@pytest.mark.parametrize(
    ("first", "second", "direction", "expected"),
    [
        (900.0, 800.0, 0, Motion.NEXT),
        (800.0, 900.0, 0, Motion.NEXT),
        (900.0, 800.0, -1, Motion.NEXT),
        (800.0, 900.0, -1, Motion.BACK),
        (900.0, 800.0, 1, Motion.BACK),
        (900.0, 900.0, -1, Motion.REPEAT),
        (900.0, 900.0, 0, Motion.REPEAT),
    ],
)
def test_numbers(first, second, direction, expected):
    assert motion(Number(first), Number(second), direction) is expected


def test_positions_of_two_kinds():
    (element,) = elements(SCHEDULE, 1)
    pairs: list[tuple[Position, Position]] = [
        (element, Number(1.0)),
        (Number(1.0), Unknown()),
        (Place(0, 3), element),
    ]
    for last, now in pairs:
        assert motion(last, now, 0) is Motion.OTHER
    assert motion(Unknown(), Unknown(), 0) is Motion.UNKNOWN


def test_numbers_have_a_direction():
    assert direction_of(Number(1.0), Number(2.0)) == 1
    assert direction_of(Number(2.0), Number(1.0)) == -1
    assert direction_of(Number(2.0), Number(2.0)) == 0
    assert direction_of(Place(0, 2), Place(1, 2)) == 0
