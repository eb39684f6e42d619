"""Tests the table's rows: values that only refreshes read have rows of planned refreshes alone."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from fxcache.runtime.features.prologue import Prologue, Prologues
from fxcache.runtime.features.timestep_table import TimestepTable
from fxcache.step import Step
from tests.engines import optimized_engine, variants_of
from tests.loops import refreshes
from tests.plain import denoised, dit, dit_inputs

DEPTH, STEPS = 4, 7


def table(model: nn.Module) -> TimestepTable:
    """Return the table of the last run."""
    *_, trajectory = optimized_engine(model).store.trajectories
    prologue: Prologue = trajectory.slot(Prologues).by_variants[variants_of(model)]
    assert prologue.table is not None
    return prologue.table


def rows(model: nn.Module) -> list[list[int]]:
    """Return the rows of values that every step reads, and of those that only refreshes read."""
    return [list(part.places) for part in table(model).parts]


def counted(model: nn.Module) -> tuple[int, int, Tensor]:
    """Return the FLOPs of a run as torch counts them, and as the report does, and its result."""
    denoised(model, STEPS)  # captures
    fxcache.clear(model)
    with FlopCounterMode(display=False) as counter:
        result = denoised(model, STEPS)
    reported = sum(step.flops for step in optimized_engine(model).runs[-1].steps)
    return counter.get_total_flops(), reported, result


def optimized(policy: fxcache.Policy, hoist: Literal["table"] | None = "table") -> nn.Module:
    return fxcache.optimize(dit(DEPTH), policy, hoist=hoist)


@pytest.mark.parametrize("policy", [fxcache.Uniform(3), fxcache.TaylorSeer(3, order=1, first=2)])
def test_modulations_of_blocks_have_rows_of_refreshes(policy: fxcache.Policy) -> None:
    model = optimized(policy)
    measured, reported, result = counted(model)
    assert rows(model) == [[*range(STEPS)], refreshes(model)[-1]]
    assert measured == reported
    plainly, _, expected = counted(optimized(policy, None))
    assert measured <= plainly
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


class Hidden(fxcache.Uniform):
    """Refreshes at every third step, and does not say so in advance."""

    def plans_refresh(self, step: Step) -> bool:
        return False


def test_refreshes_that_were_not_planned_compute_the_values() -> None:
    model = optimized(Hidden(3))
    measured, reported, result = counted(model)
    assert rows(model) == [[*range(STEPS)], [0]]
    assert measured == reported
    _, _, expected = counted(optimized(fxcache.Uniform(3), None))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


CHANGES = {f"layers.{i}": (0.1, 0.2, 0.3, 0.1, 0.4, 0.2, 0.1) for i in range(DEPTH)}


@pytest.mark.parametrize(
    "policy",
    [
        fxcache.TeaCache(1.0, coefficients=(1.0, 0.0)),
        fxcache.BlockCaching(0.4, changes=CHANGES | {"layers.0": STEPS * (0.3,)}),
    ],
)
def test_policies_that_decide_at_each_step_have_all_rows(policy: fxcache.Policy) -> None:
    model = optimized(policy)
    denoised(model, STEPS)
    assert rows(model)[1] == [*range(STEPS)]


@torch.no_grad()
def test_timesteps_that_are_numbers_have_the_order_of_the_last_run() -> None:
    model, inputs = optimized(fxcache.Uniform(3)), dit_inputs()
    for _ in range(2):
        latent = inputs["sample"]
        for t in torch.linspace(900, 100, STEPS).tolist():
            latent = latent - 0.1 * model(latent, torch.tensor(t), inputs["text"])
    assert rows(model) == [[*range(STEPS)], refreshes(model)[-1]]
