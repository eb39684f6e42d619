"""Tests golden schedules, and the properties of every policy."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxcache.errors import ConfigError, ScheduleError
from fxcache.policies import Explicit, NonUniform, Policy, Uniform
from fxcache.step import Decision, Step


def refreshed(policy: Policy, steps: int) -> list[int]:
    return [i for i in range(steps) if policy.decide(Step(i, steps)).refresh]


def test_uniform_refreshes_multiples_of_the_interval():
    assert refreshed(Uniform(interval=5), 50) == list(range(0, 50, 5))
    assert refreshed(Uniform(interval=1), 4) == [0, 1, 2, 3]
    assert refreshed(Uniform(interval=99), 4) == [0]


def test_non_uniform_equals_deepcaches_released_code():
    assert refreshed(NonUniform(interval=5, center=15, power=1.4), 50) == [
        0, 5, 9, 13, 17, 21, 26, 31, 37, 43,
    ]  # fmt: skip


def test_explicit_refreshes_the_list_and_the_first_step():
    assert refreshed(Explicit(steps=(7, 3)), 10) == [0, 3, 7]
    listed: Any = [3, 3, 1]  # as JSON has it
    assert Explicit(steps=listed) == Explicit(steps=(1, 3))


def test_first_and_last_steps_refresh():
    assert refreshed(Uniform(interval=4, first=3, last=2), 12) == [0, 1, 2, 4, 8, 10, 11]


def test_last_steps_need_the_length():
    with pytest.raises(ScheduleError, match="num_steps"):
        Uniform(interval=4, last=2).decide(Step(1, None))
    assert not Uniform(interval=4).decide(Step(1, None)).refresh


numbers = st.floats(0, 300, allow_nan=False)


@given(
    steps=st.integers(1, 300),
    interval=st.integers(1, 60),
    center=numbers,
    power=st.floats(0.1, 5),
)
def test_non_uniform_refreshes_as_often_as_uniform_and_first(steps, interval, center, power):
    found = refreshed(NonUniform(interval=interval, center=center, power=power), steps)
    assert len(found) == math.ceil(steps / interval)
    assert found[0] == 0
    assert all(0 <= step < steps for step in found)


@given(
    st.one_of(
        st.builds(Uniform, interval=st.integers(1, 99), first=st.integers(0, 9)),
        st.builds(NonUniform, interval=st.integers(1, 99), center=numbers),
        st.builds(Explicit, steps=st.lists(st.integers(0, 99))),
    )
)
def test_policies_survive_a_round_trip_through_json(policy):
    import json

    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


@pytest.mark.parametrize("interval", [0, -1, 2.0, "3", None, True])
@pytest.mark.parametrize("kind", [Uniform, NonUniform])
def test_wrong_intervals_are_refused(kind, interval):
    with pytest.raises(ConfigError, match="interval"):
        kind(interval=interval)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (NonUniform, {"center": -1}),
        (NonUniform, {"center": math.nan}),
        (NonUniform, {"power": 0}),
        (NonUniform, {"power": "1.4"}),
        (Explicit, {"steps": (1, -2)}),
        (Explicit, {"steps": "012"}),
        (Uniform, {"first": -1}),
        (Uniform, {"last": 1.5}),
    ],
)
def test_wrong_options_raise_config_error(kind, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        kind(**options)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"policy": "Unifrom"}, "Uniform"),
        ({}, "no policy"),
        ({"policy": "Uniform", "every": 3}, "every"),
    ],
)
def test_unknown_names_are_errors(data, expected):
    with pytest.raises(ConfigError, match=expected):
        Policy.from_dict(data)


def test_policies_are_frozen():
    with pytest.raises(AttributeError):
        Uniform().interval = 3  # type: ignore[misc]


def test_common_options_are_keyword_only():
    assert Uniform(5) == Uniform(interval=5)
    assert NonUniform(5, 15, 1.4).power == 1.4


def policy_of_a_user(default: int) -> type[Policy]:
    """Define a policy with the name of one of fxcache's, as a notebook may."""

    @dataclass(frozen=True)
    class Uniform(Policy):
        interval: int = default

        def scheduled(self, step: Step) -> Decision:
            return Decision(step.index % self.interval == 0, "mine")

    return Uniform


MINE = f"{__name__}:policy_of_a_user.<locals>.Uniform"


def test_policies_of_one_name_are_distinguished():
    mine = policy_of_a_user(7)()
    assert mine.to_dict()["policy"] == MINE
    assert type(Policy.from_dict(mine.to_dict())) is type(mine)
    assert Uniform(5).to_dict()["policy"] == "Uniform"
    assert type(Policy.from_dict(Uniform(5).to_dict())) is Uniform


def test_a_class_that_is_defined_again_replaces_the_first():
    old, new = policy_of_a_user(7), policy_of_a_user(8)
    found = Policy.from_dict(old().to_dict())
    assert type(found) is new
    assert [name for name in Policy.kinds if name == MINE] == [MINE]


def test_a_policy_that_is_not_imported_is_named_with_its_module():
    with pytest.raises(ConfigError, match=r"import their\.policies first, which defines Theirs"):
        Policy.from_dict({"policy": "their.policies:Theirs", "threshold": 0.3})


def test_only_fxcaches_own_policies_have_short_names():
    short = {name for name in Policy.kinds if ":" not in name}
    assert {"Uniform", "TeaCache", "Scheduled"} <= short
    assert all(Policy.kinds[name].__module__.startswith("fxcache.") for name in short)
