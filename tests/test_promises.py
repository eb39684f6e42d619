"""Tests the promises of the README, each in a test with its number (for feature cuts)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from tests import tiny
from tests.engines import interrupted, optimized_engine, variants_of
from tests.loops import last_reason, refreshes, sample
from tests.planning import plan

ROOT = Path(__file__).parents[1]
# All but promise 3, which is about two captures, and 6, which has none.
shares_captures = pytest.mark.usefixtures("shared_captures")


@shares_captures
@pytest.mark.parametrize("cut", ["auto", 1, 3, "mid_block"])
def test_promise_1_refresh_on_every_step_equals_the_original_bit_for_bit(cut):
    expected = sample(tiny.small_unet(), **tiny.inputs())
    unet = fxcache.optimize(tiny.small_unet(), cut=cut, policy=fxcache.Uniform(interval=1))
    assert torch.equal(sample(unet, **tiny.inputs()), expected)


@shares_captures
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@torch.no_grad()
def test_promise_2_reuse_with_unchanged_inputs_equals_full_bit_for_bit(cut):
    unet = fxcache.optimize(tiny.small_unet(), cut=cut, policy=fxcache.Explicit(steps=(0,)))
    inputs = tiny.inputs()
    with fxcache.session(unet):
        refreshed = unet(timestep=500, **inputs).sample
        reused = unet(timestep=500, **inputs).sample
    assert refreshes(unet)[-1] == [0], "the second call must have reused"
    assert torch.equal(refreshed, reused)
    assert torch.equal(refreshed, tiny.small_unet()(timestep=500, **inputs).sample)


def test_promise_3_the_same_inputs_and_versions_give_the_same_plan():
    assert plan() == (first := plan())
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.planning"],
        cwd=ROOT,
        env={"PYTHONHASHSEED": other_seed, "PATH": "", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(printed) == first


@shares_captures
@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("way", ["torch.compile", "module.compile", "fullgraph", "before"])
def test_promise_4_two_graphs_no_break_no_recompilation_over_a_run(way):
    policy = fxcache.Uniform(interval=5)
    expected = sample(fxcache.optimize(tiny.small_unet(), policy=policy), 20, **tiny.inputs())
    counter = CompileCounterWithBackend("eager")
    unet = tiny.small_unet()
    model: Any
    if way == "torch.compile":
        model = torch.compile(fxcache.optimize(unet, policy=policy), backend=counter)
    elif way == "before":
        model = fxcache.optimize(torch.compile(unet, backend=counter), policy=policy)
    else:
        model = fxcache.optimize(unet, policy=policy)
        model.compile(backend=counter, fullgraph=way == "fullgraph")

    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        latents = sample(model, 20, **tiny.inputs())
        again = sample(model, 20, **tiny.inputs())

    assert counter.frame_count == 2
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch.equal(latents, expected)
    assert torch.equal(again, expected)
    assert refreshes(unet) == [[0, 5, 10, 15]] * 2


@shares_captures
class TestPromise5NothingStaleCrosses:
    """Every result equals that of the same request alone, or of the uncached model."""

    policy = fxcache.Uniform(interval=3)

    def alone(self, **inputs: Any) -> torch.Tensor:
        return sample(fxcache.optimize(tiny.small_unet(), policy=self.policy), **inputs)

    def test_a_session(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        inputs = tiny.inputs()
        with torch.no_grad():
            with fxcache.session(unet):
                unet(timestep=500, **inputs)
            with fxcache.session(unet):
                inputs["sample"] = inputs["sample"] + 1
                second = unet(timestep=400, **inputs).sample
        assert torch.equal(second, sample_once(inputs, 400))

    def test_requests_in_turns_with_their_own_prompts(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        requests = [tiny.inputs(seed=s) for s in (1, 2, 3)]
        assert all(
            torch.equal(a, self.alone(**r))
            for a, r in zip(in_turns(unet, requests), requests, strict=True)
        )
        assert refreshes(unet) == [[0, 3, 6, 9]] * 3

    def test_requests_in_turns_with_one_prompt_but_their_own_timesteps(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        shared = tiny.inputs(seed=1)
        requests = [shared, shared | {"sample": shared["sample"] * 2}]
        assert all(
            torch.equal(a, self.alone(**r))
            for a, r in zip(in_turns(unet, requests), requests, strict=True)
        )

    def test_the_branches_of_sequential_guidance(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        conditional, unconditional = tiny.inputs(seed=1), tiny.inputs(seed=2)
        unconditional["sample"] = conditional["sample"]
        pair = in_turns(unet, [conditional, unconditional], shared_timesteps=True)
        for got, given in zip(pair, (conditional, unconditional), strict=True):
            assert torch.equal(got, self.alone(**given))
        assert refreshes(unet) == [[0, 3, 6, 9]] * 2

    @torch.no_grad()
    def test_a_shape_changed_in_the_middle_of_a_run(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        inputs = tiny.inputs()
        with fxcache.session(unet):
            unet(timestep=900, **inputs)
            inputs["sample"] = tiny.inputs(size=8)["sample"]
            smaller = unet(timestep=800, **inputs).sample
        assert last_reason(unet) == "first call"
        assert torch.equal(smaller, sample_once(inputs, 800))

    @torch.no_grad()
    def test_a_batch_changed_in_the_middle_of_a_run(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        with fxcache.session(unet, key="request"):
            unet(timestep=900, **tiny.inputs(batch=1))
            wider = unet(timestep=800, **tiny.inputs(batch=2)).sample
        assert torch.equal(wider, sample_once(tiny.inputs(batch=2), 800))

    def test_a_weight_change(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        sample(unet, **tiny.inputs())
        plain = tiny.small_unet()
        for model in (unet, plain):
            with torch.no_grad():
                model.conv_in.weight.mul_(1.5)  # in place: the graph reads the same tensor
            old = model.mid_block.resnets[0].conv1.weight
            model.mid_block.resnets[0].conv1.weight = torch.nn.Parameter(old.detach() * 0.5)
        expected = sample(fxcache.optimize(plain, policy=self.policy), **tiny.inputs())
        assert torch.equal(sample(unet, **tiny.inputs()), expected)

    @torch.no_grad()
    @pytest.mark.parametrize("change", ["in place", "replaced", "setting"])
    def test_a_change_that_another_request_noticed_in_the_middle_of_a_run(self, change):
        unet, plain = fxcache.optimize(tiny.small_unet(), policy=self.policy), tiny.small_unet()
        first, second = tiny.inputs(seed=1), tiny.inputs(seed=2)
        unet(timestep=900, **first)
        for model in (unet, plain):
            if change == "in place":
                model.conv_in.weight.mul_(1.5)
            elif change == "replaced":
                model.conv_in.weight = torch.nn.Parameter(model.conv_in.weight * 1.5)
            else:
                model.mid_block.resnets[0].output_scale_factor = 2.0
        unet(timestep=900, **second)
        after = unet(timestep=800, **first).sample
        assert torch.equal(after, plain(timestep=800, **first).sample)

    def test_a_replaced_submodule(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=fxcache.Uniform(interval=1))
        sample(unet, **tiny.inputs())
        unet.conv_act = torch.nn.ReLU()
        plain = tiny.small_unet()
        plain.conv_act = torch.nn.ReLU()
        assert torch.equal(sample(unet, **tiny.inputs()), sample(plain, **tiny.inputs()))

    def test_a_changed_setting(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=fxcache.Uniform(interval=1))
        sample(unet, **tiny.inputs())
        plain = tiny.small_unet()
        for model in (unet, plain):
            model.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
        assert torch.equal(sample(unet, **tiny.inputs()), sample(plain, **tiny.inputs()))

    @torch.no_grad()
    def test_an_exception_in_the_middle_of_a_run(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy, hoist=None)
        inputs = tiny.inputs()
        with fxcache.session(unet):
            unet(timestep=900, **inputs)
            with (
                interrupted(unet, variants_of(unet).cached_skip, failing),
                pytest.raises(ZeroDivisionError),
            ):
                unet(timestep=800, **inputs)
            after = unet(timestep=700, **inputs).sample
        assert last_reason(unet) == "the last call did not finish"
        assert torch.equal(after, sample_once(inputs, 700))

    @torch.no_grad()
    def test_a_prompt_written_over_in_place(self):
        unet = fxcache.optimize(tiny.small_unet(), policy=self.policy)
        inputs = tiny.inputs()
        with fxcache.session(unet, num_steps=9):
            for timestep in (900, 800):
                unet(timestep=timestep, **inputs)
            inputs["encoder_hidden_states"].mul_(2)
            after = unet(timestep=700, **inputs).sample
        assert last_reason(unet) == "conditioning was written in place"
        assert torch.equal(after, sample_once(inputs, 700))


def failing(*_: object) -> None:
    raise ZeroDivisionError


@torch.no_grad()
def sample_once(inputs: dict[str, torch.Tensor], timestep: int) -> torch.Tensor:
    """Return the uncached model's prediction."""
    return tiny.small_unet()(timestep=timestep, **inputs).sample


@torch.no_grad()
def in_turns(
    model: torch.nn.Module, requests: list[dict[str, torch.Tensor]], shared_timesteps: bool = False
) -> list[torch.Tensor]:
    """Run ten DDIM steps of several requests, which take turns at each step."""
    schedulers = [tiny.ddim() for _ in requests]
    for scheduler in schedulers:
        scheduler.set_timesteps(10)
    latents = [r["sample"] for r in requests]
    turns = [schedulers[0].timesteps] * len(requests)
    if not shared_timesteps:
        turns = [s.timesteps for s in schedulers]
    for now in zip(*turns, strict=True):
        for i, (request, scheduler, t) in enumerate(zip(requests, schedulers, now, strict=True)):
            text = request["encoder_hidden_states"]
            predicted = model(latents[i], t, text).sample
            latents[i] = scheduler.step(predicted, t, latents[i]).prev_sample
    return latents


def test_promise_6_no_silent_fallback_but_the_place_the_reason_and_the_remedy():
    class Branching(torch.nn.Module):
        def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            if sample.mean() > 0:  # the line that cannot be captured
                return sample * timestep
            return sample

    model = fxcache.optimize(Branching().eval())
    with torch.no_grad(), pytest.raises(fxcache.CaptureError) as caught:
        model(torch.ones(1, 4, 8, 8), torch.tensor(1))
    assert "test_promises.py" in caught.value.where
    assert "if sample.mean() > 0" in caught.value.where
    assert caught.value.remedy
    assert not optimized_engine(model).captures


def test_promise_7_every_published_number_is_regenerated_by_one_command():
    """Each number in a page's tables is in the results of its command."""
    from bench.figures import PAGES, stated_in

    for page, figures in PAGES.items():
        assert stated_in(page) == figures()


@shares_captures
@torch.no_grad()
def test_euler_feeds_float_timesteps_and_still_gets_one_capture():
    unet = fxcache.optimize(tiny.small_unet(), policy=fxcache.Uniform(interval=5))
    sample(unet, 20, scheduler=EulerDiscreteScheduler(), **tiny.inputs())
    engine = optimized_engine(unet)
    assert len(engine.captures) == 1
    assert refreshes(unet) == [[0, 5, 10, 15]]
