"""Tests a user's policy and forecast, made with the public names of ``fxcache``."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import fxcache
from tests import tiny
from tests.loops import refreshes, sample

pytestmark = pytest.mark.usefixtures("shared_captures")


@dataclass(frozen=True)
class Moved(fxcache.Policy):
    """Refresh when the timestep embedding has changed by more than a share of itself."""

    share: float = 0.5
    most: int = 3

    @property
    def observes(self) -> fxcache.Observation:
        return fxcache.Observation((fxcache.Signal.TIMESTEP_EMBEDDING,), fxcache.Since.REFRESH)

    def scheduled(self, step: fxcache.Step) -> fxcache.Decision:
        late = len(step.changes) > self.most
        return fxcache.Decision(late or step.changes[-1] > self.share, "moved")


@dataclass(frozen=True)
class Half(fxcache.Forecast):
    """Extrapolate by half of the last difference."""

    def weights(self, age: int, distance: int, step: fxcache.Step) -> tuple[float, ...]:
        del distance, step
        return (age / 2,) + (0.0,) * (self.order - 1)


def test_a_users_policy_and_forecast_work(tmp_path):
    outputs, schedules = [], []
    for forecast in (None, Half(), fxcache.Taylor()):
        unet = fxcache.optimize(tiny.small_unet(), Moved(1e6), forecast=forecast)
        outputs.append(sample(unet, 12, **tiny.inputs()))
        schedules.append(refreshes(unet))
    assert schedules == [[[0, 4, 8]]] * 3, "a forecast changes no schedule"
    plain, half, whole = outputs
    assert 0 < (half - plain).norm() < (whole - plain).norm()

    plan = fxcache.Plan.of(tiny.small_unet(), Moved(1e6), forecast=Half())
    plan.save(tmp_path / "plan.json")
    again = fxcache.optimize(tiny.small_unet(), tmp_path / "plan.json")
    assert torch.equal(sample(again, 12, **tiny.inputs()), half)


def test_user_classes_are_named_by_module_and_class():
    assert fxcache.Policy.kinds[f"{__name__}:Moved"] is Moved
    assert fxcache.Forecast.kinds[f"{__name__}:Half"] is Half
    found = fxcache.report(fxcache.optimize(tiny.small_unet(), Moved())).policy
    assert found["policy"] == f"{__name__}:Moved"


@dataclass(frozen=True)
class Returning(fxcache.Policy):
    """Decide whatever it was made with."""

    value: Any = None

    def scheduled(self, step: fxcache.Step) -> fxcache.Decision:
        del step
        return self.value


@dataclass(frozen=True)
class Weighted(fxcache.Forecast):
    """Return the weights that it was made with."""

    value: Any = None

    def weights(self, age: int, distance: int, step: fxcache.Step) -> tuple[float, ...]:
        del age, distance, step
        return self.value


@pytest.mark.parametrize("value", [None, True, "refresh"])
def test_a_policy_that_returns_no_decision_is_named(value):
    unet = fxcache.optimize(tiny.small_unet(), Returning(value))
    with pytest.raises(fxcache.ConfigError, match=r"Returning\.scheduled") as caught:
        sample(unet, 3, **tiny.inputs())
    assert repr(value) in caught.value.what


@pytest.mark.parametrize("value", [None, (), (1.0, 2.0), 0.5])
def test_a_forecast_with_other_weights_than_its_order_is_named(value):
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(2), forecast=Weighted(value=value))
    with pytest.raises(fxcache.ConfigError, match=r"Weighted\.weights") as caught:
        sample(unet, 3, **tiny.inputs())
    assert "order 1" in caught.value.what
