"""Tests hoisting when prompts, weights or requests change."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.analysis.hoisting import HoistLevel
from tests.engines import optimized_engine, variants_of
from tests.loops import refreshes
from tests.plain import dit, dit_inputs
from tests.runtime.hoisted import (
    ALWAYS,
    OBSERVING,
    SCHEDULE,
    Small,
    assert_equal,
    levels,
)

pytestmark = pytest.mark.usefixtures("shared_captures")


@torch.no_grad()
def test_a_prompt_rewritten_during_a_run_stops_hoisting():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    inputs = dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for step, t in enumerate(torch.linspace(900, 100, 6)):
            if step == 3:
                inputs["text"].mul_(2)
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))


@torch.no_grad()
def test_weights_written_during_a_run_stop_hoisting():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    inputs = dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for step, t in enumerate(torch.linspace(900, 100, 4)):
            if step == 2:
                for module in (model, plain):
                    module.layers[1].key_value.weight.mul_(1.5)
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))


@torch.no_grad()
def test_a_keyed_request_hoists_its_new_prompt():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    for seed in range(3):
        inputs = dit_inputs(seed=seed)
        for t in torch.linspace(900, 100, 3):
            with fxcache.session(model, key="one"):
                assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
    assert levels(model) == {HoistLevel.PER_RUN}


@torch.no_grad()
def test_requests_in_turns_hoist_their_prompts():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    for run in range(2):
        requests = [dit_inputs(seed=2 * run + i) for i in range(2)]
        schedules = [torch.linspace(900, 100, 4) for _ in requests]
        for step in range(4):
            for inputs, timesteps in zip(requests, schedules, strict=True):
                t = timesteps[step]
                assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
    assert levels(model) == {HoistLevel.PER_RUN}


def test_inference_tensors_are_not_hoisted():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    with pytest.warns(match="inference mode"), torch.inference_mode():  # noqa: PT031
        inputs, timesteps = dit_inputs(), torch.linspace(900, 100, 4)
        for t in timesteps:
            inputs["text"].mul_(1.1)
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
    assert levels(model) == {HoistLevel.NOTHING}


def test_by_default_what_prevents_hoisting_is_noted_and_no_warning():
    model, plain = fxcache.optimize(dit(), ALWAYS), dit()
    inputs, timesteps = dit_inputs(), torch.linspace(900, 100, 4)
    with torch.inference_mode():
        text = inputs.pop("text") * 1.0
        for t in timesteps:
            assert torch.equal(
                model(timestep=t, text=text, **inputs), plain(timestep=t, text=text, **inputs)
            )
    assert levels(model) == {HoistLevel.NOTHING}
    assert "inference mode" in str(fxcache.report(model))


@torch.no_grad()
def test_by_default_a_loop_that_prevents_hoisting_keeps_to_two_graphs():
    model, inputs = fxcache.optimize(dit(), fxcache.Uniform(2)), dit_inputs()
    text, made = inputs.pop("text"), []
    for _ in range(3):
        for t in torch.linspace(900, 100, 4):
            model(timestep=t, text=text.clone(), **inputs)  # another tensor at every step
        variants = variants_of(model)
        made.append({key.hoisted for key in variants.made})
    assert refreshes(model)[1:] == [[0, 2]] * 2
    assert made[0] == made[2]
    levels_at_the_end = [step.level for step in optimized_engine(model).runs[-1].steps]
    assert set(levels_at_the_end) == {HoistLevel.NOTHING}
    assert "changed during a run" in str(fxcache.report(model))


class Telling(nn.Module):
    """Also returns the embedded text, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        read = self.read(text)
        return self.last(self.deep(x) + x * t) + read, read, read[0]


@torch.no_grad()
def test_writing_to_an_output_does_not_change_hoisted_values():
    model = fxcache.optimize(Telling().eval(), cut="deep", hoist="once", policy=ALWAYS)
    plain, x, text = Telling().eval(), torch.ones(3, 4), torch.randn(3, 4)
    for t in torch.linspace(900, 100, 3):
        found, expected = model(x, t, text), plain(x, t, text)
        for value, like in zip(found, expected, strict=True):
            assert torch.equal(value, like)
            value.fill_(torch.nan)


class Named(Small):
    """Has the names of inputs that graphs use themselves."""

    def forward(  # type: ignore[override]
        self, x: Tensor, t: Tensor, hoisted_0: Tensor, cached: list[Tensor], weights: Tensor
    ) -> tuple[Tensor, ...]:
        found, read = super().forward(x, t, hoisted_0)
        return found + weights + cached[0], read


@pytest.mark.parametrize("hoist", ["once", "table"])
def test_shared_values_are_not_written(hoist):
    """The output is a view of a hoisted value, which both graphs of a step read."""
    model = fxcache.optimize(Small().eval(), hoist=hoist, policy=OBSERVING)
    assert_equal(model, Small().eval(), SCHEDULE, atol=1e-6)
    assert levels(model) == {HoistLevel.PER_RUN if hoist == "once" else HoistLevel.PER_STEP}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:the model fixes sizes")
def test_a_changed_batch_hoists_again():
    sizes = {"x": (0,), "t": (0,)}
    model = fxcache.optimize(
        Small().eval(), hoist="table", policy=ALWAYS, capture=fxcache.CaptureConfig(dynamic=sizes)
    )
    plain, text, timesteps = Small().eval(), torch.randn(1, 5, 4), SCHEDULE
    for batch in (4, 2, 3):
        for t in timesteps:
            x = torch.randn(batch, batch, 4)
            found, expected = (called(x, t.expand(batch), text) for called in (model, plain))
            torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_next_run_notices_uncounted_writes():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    inputs = dit_inputs()
    for _ in range(2):
        for t in torch.linspace(900, 100, 3):
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
        inputs["text"].data.mul_(2)
        for module in (model, plain):
            for parameter in module.parameters():
                parameter.data.mul_(1.5)


@torch.no_grad()
def test_the_next_run_hoists_again_after_a_change():
    model, inputs = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for run in range(2):
            for step, t in enumerate(torch.linspace(900, 100, 3)):
                if (run, step) == (0, 1):
                    inputs["text"].mul_(2)
                model(timestep=t, **inputs)
    engine = optimized_engine(model)
    variants = variants_of(model)
    per_run = [[step.flops for step in run.steps] for run in engine.runs]
    full = variants.full_flops
    assert per_run[0][1:] == [full] * 2
    assert max(per_run[1][1:]) < full == per_run[1][0]


@pytest.mark.parametrize("hoist", [None, "once", "table"])
@pytest.mark.parametrize("policy", [ALWAYS, fxcache.TaylorSeer(1, order=1), OBSERVING])
def test_inputs_with_names_of_placeholders_work(hoist, policy):
    model = fxcache.optimize(Named().eval(), hoist=hoist, policy=policy)
    more: dict[str, Any] = {
        "hoisted_0": torch.randn(2, 5, 4),
        "cached": [torch.ones(4)],
        "weights": torch.ones(4),
    }
    assert_equal(model, Named().eval(), SCHEDULE, atol=1e-6, **more)


@torch.no_grad()
def test_one_tensor_in_two_inputs_is_hoisted():
    class Twice(Small):
        def forward(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
            h = self.enter(x * r / 1000) + self.embed(t)
            for block in self.blocks:
                h = h + block(h)
            found: Tensor = self.leave(h)
            return found

    model = fxcache.optimize(Twice().eval(), hoist="table", policy=ALWAYS)
    plain, x = Twice().eval(), torch.randn(2, 5, 4)
    with fxcache.session(model, key="one"):
        for t in SCHEDULE:
            torch.testing.assert_close(model(x, t, t), plain(x, t, t))
    assert levels(model) == {HoistLevel.PER_STEP}
