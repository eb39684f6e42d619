"""Tests the table of timesteps: which timesteps get rows, and when a table is dropped."""

import math
import warnings
from typing import Any

import pytest
import torch
from diffusers import HeunDiscreteScheduler
from torch import Tensor, nn

import fxcache
from fxcache.analysis.hoisting import HoistLevel
from fxcache.runtime.features.timesteps import MAX_AGE, MAX_ROWS, TimestepHistory
from fxcache.runtime.trajectory.position import Number, Place
from tests import tiny
from tests.loops import sample
from tests.plain import denoised, dit, dit_inputs
from tests.runtime.hoisted import (
    ALWAYS,
    SCHEDULE,
    Small,
    assert_equal,
    both,
    levels,
    tabulated,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


def test_a_table_supports_repeated_timesteps_and_late_starts():
    def run(model: nn.Module) -> Tensor:
        scheduler = HeunDiscreteScheduler()
        inputs = tiny.inputs()
        first = sample(model, 5, scheduler=scheduler, **inputs)
        latents = inputs.pop("sample")
        scheduler = tiny.ddim()
        scheduler.set_timesteps(8)
        with torch.no_grad():
            for t in scheduler.timesteps[3:]:
                predicted = model(latents, t, **inputs).sample
                latents = scheduler.step(predicted, t, latents).prev_sample
        return torch.stack([first, latents])

    expected, found, model = both(tiny.small_unet, run, hoist="table")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert levels(model) == {HoistLevel.PER_STEP}


@torch.no_grad()
def test_unknown_timesteps_are_warned_of():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    plain, inputs = dit(), dit_inputs()
    with fxcache.session(model), pytest.warns(match="no table of timesteps"):  # noqa: PT031
        for last in (900.0, 500.0):
            each = torch.tensor([1000.0, last])
            assert torch.equal(model(timestep=each, **inputs), plain(timestep=each, **inputs))
    assert levels(model) == {HoistLevel.PER_RUN}


def as_numbers(model: nn.Module, schedule: Tensor, seed: int, **inputs: Any) -> list[Tensor]:
    """Return the outputs over a schedule whose elements are new tensors, as in FLUX."""
    given = dit_inputs(seed=seed) | inputs
    latent = given.pop("sample")
    found = []
    with torch.no_grad():
        for t in schedule:
            found.append(model(latent, t.expand(len(latent)).clone(), **given))
            latent = latent + 0.01 * latent.flip(1)
    return found


def test_timesteps_of_one_run_make_the_next_runs_table():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    short, long = torch.linspace(900, 100, 4), torch.linspace(950, 50, 7)
    for seed, schedule in enumerate([short, short, long, long, short]):
        found, expected = (as_numbers(m, schedule, seed) for m in (model, dit()))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert tabulated(model) == [0, 4, 0, 7, 4]


def test_timesteps_are_looked_up_only_if_all_are_equal():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    inputs, plain = dit_inputs(), dit()
    first, same = torch.tensor([950.0, 950.0]), torch.tensor([900.0, 900.0])
    other = torch.tensor([100.0, 900.0])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", fxcache.FxcacheWarning)
        for seed, schedule in enumerate([(first, same), (first, other), (other, same)]):
            inputs = dit_inputs(seed=seed)
            for t in schedule:
                inputs["sample"] = inputs["sample"] * 0.99
                found, expected = (m(timestep=t, **inputs) for m in (model, plain))
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert tabulated(model) == [0, 1, 0]


def test_signed_zeros_and_nan_have_rows():
    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            x = self.first(x)
            found: Tensor = self.last(self.deep(x) + x) * torch.atan(1 / t) + text
            return found

    model = fxcache.optimize(Inverse().eval(), cut="deep", hoist="table", policy=ALWAYS)
    plain, x = Inverse().eval(), torch.ones(3, 4)
    with torch.no_grad():
        for run, schedule in enumerate([(1.0, 0.0), (1.0, -0.0), (math.nan,), (math.nan,)]):
            text = torch.full((3, 4), float(run))
            for t in schedule:
                found, expected = model(x, t, text), plain(x, torch.tensor(t), text)
                torch.testing.assert_close(found, expected, equal_nan=True)


@torch.no_grad()
def test_no_table_if_a_batch_changes_the_dtype():
    """``where`` promotes a batch of float64, but not a single number."""

    class Chosen(nn.Module):
        frequencies: Tensor

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))
            self.register_buffer("frequencies", torch.linspace(0, 1, 4))

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            x = self.first(x) * torch.where(self.frequencies > 0.5, t / 1000, self.frequencies)
            found: Tensor = self.last(self.deep(x) + x) + text
            return found

    model = fxcache.optimize(Chosen().eval(), cut="deep", hoist="table", policy=ALWAYS)
    plain, x = Chosen().eval(), torch.ones(3, 4)
    with pytest.warns(match="no table of timesteps"):  # noqa: PT031
        for run in range(2):
            text = torch.full((3, 4), float(run))
            for step, t in enumerate((900.3, 500.1, 100.7)):
                latent = x * 0.9**step
                expected = plain(latent, torch.tensor(t, dtype=torch.float64), text)
                assert torch.equal(model(latent, t, text), expected)
    assert tabulated(model) == [0, 0]


@torch.no_grad()
def test_a_row_has_the_memory_order_of_the_graph():
    class Transposed(nn.Module):
        frequencies: Tensor

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(6, 6) for _ in range(3))
            self.register_buffer("frequencies", torch.linspace(0, 1, 6).reshape(1, 2, 3))

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            emb = torch.sin((t.reshape(1, 1, 1) / 1000 + self.frequencies).transpose(1, 2))
            x = self.first(x) * emb.transpose(1, 2).view(6)
            found: Tensor = self.last(self.deep(x) + x) + text
            return found

    model = fxcache.optimize(Transposed().eval(), cut="deep", hoist="table", policy=ALWAYS)
    plain, x, text = Transposed().eval(), torch.ones(3, 6), torch.ones(3, 6)
    for t in torch.linspace(900, 100, 4):
        torch.testing.assert_close(model(x, t, text), plain(x, t, text), rtol=1e-5, atol=1e-5)
    assert tabulated(model) == [4]


def test_unused_hoisting_is_not_reported_as_saved():
    example = {**dit_inputs(), "timestep": torch.tensor([900.0, 900.0])}
    model = fxcache.optimize(
        dit(), hoist="table", policy=ALWAYS, capture=fxcache.CaptureConfig(example_inputs=example)
    )
    to_come = fxcache.report(model).captures[0].hoisted_weight_bytes
    saved = []
    for seed in range(2):
        as_numbers(model, torch.linspace(900, 100, 3), seed)
        saved.append(fxcache.report(model).captures[0].hoisted_weight_bytes)
    once = fxcache.optimize(dit(), hoist="once", policy=ALWAYS)
    denoised(once)
    assert saved[0] == fxcache.report(once).captures[0].hoisted_weight_bytes < saved[1]
    assert saved[1] == to_come


def test_timesteps_are_remembered_and_dropped():
    heard = TimestepHistory()
    assert heard.begin() == ()
    for value, uniform in ((9.0, True), (5.0, True), (7.0, False)):
        heard.add(Number(value, uniform=uniform))
    heard.add(Place(3, 4))
    assert heard.begin() == (9.0, 5.0)
    heard.add(Number(5.0))
    for _ in range(MAX_AGE - 1):
        assert heard.begin() == (9.0, 5.0)
    assert heard.begin() == (5.0,)
    for value in range(2 * MAX_ROWS):
        heard.add(Number(float(value)))
    assert len(heard.begin()) == MAX_ROWS


def test_rewritten_timesteps_make_a_new_table():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    plain, inputs, timesteps = dit(), dit_inputs(), torch.linspace(900, 100, 4)
    with torch.no_grad():
        for _ in range(2):
            for t in timesteps:
                torch.testing.assert_close(
                    model(timestep=t, **inputs), plain(timestep=t, **inputs), rtol=1e-5, atol=1e-5
                )
            timesteps.mul_(0.5)


class Looked(Small):
    """Looks its timesteps up; the last one of a schedule may be missing."""

    def embed(self, t: Tensor) -> Tensor:
        return super().embed(t) * torch.arange(1000.0)[t.long().reshape(-1)].reshape(-1, 1)


def test_without_a_table_steps_compute_the_values():
    model = fxcache.optimize(Looked().eval(), hoist="table", policy=ALWAYS)
    with pytest.warns(fxcache.FxcacheWarning, match="no table of timesteps"):
        assert_equal(model, Looked().eval(), torch.tensor([999, 749, 499, -1001]), steps=3)
    assert levels(model) == {HoistLevel.PER_RUN}


def test_strided_timesteps_have_rows():
    model = fxcache.optimize(Small().eval(), hoist="table", policy=ALWAYS)
    strided = torch.from_numpy(torch.linspace(900, 100, 10).numpy()[::2])
    assert_equal(model, Small().eval(), strided, atol=1e-6)
    assert levels(model) == {HoistLevel.PER_STEP}


@torch.no_grad()
def test_timestep_weights_written_during_a_run_stop_the_table():
    model, plain = fxcache.optimize(dit(), hoist="table", policy=ALWAYS), dit()
    inputs = dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for step, t in enumerate(SCHEDULE):
            if step == 2:
                for module in (model, plain):
                    module.layers[1].modulation.weight.mul_(1.5)
            torch.testing.assert_close(model(timestep=t, **inputs), plain(timestep=t, **inputs))
