"""Tests classifier-free guidance at half the batch against a plain loop."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import fxcache
from fxcache.errors import ConfigError, CutError, FxcacheWarning
from fxcache.policies import FirstBlock, GuidanceCache, Uniform
from fxcache.step import Step
from tests import tiny
from tests.engines import optimized_engine
from tests.tiny import ddim

pytestmark = pytest.mark.usefixtures("shared_captures")

STEPS = 20
SCALE = 5.0
CACHE = GuidanceCache(interval=4, start=0.3)
ALWAYS = Uniform(1)


def pictures(count: int = 2) -> tuple[Tensor, Tensor]:
    """Return latents and text embeddings, the unconditional ones first."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(count, 4, 16, 16, generator=generator)
    return latents, torch.randn(2 * count, 7, tiny.TEXT_WIDTH, generator=generator)


@torch.no_grad()
def sample(model: Any, latents: Tensor, text: Tensor, order: int = 1, steps: int = STEPS) -> Tensor:
    """Run diffusers' loop; ``order`` -1 puts the conditional half first."""
    scheduler = ddim()
    scheduler.set_timesteps(steps)
    text = torch.cat(text.chunk(2)[::order])
    for t in scheduler.timesteps:
        predicted = model(torch.cat([latents] * 2), t, encoder_hidden_states=text).sample
        unconditional, conditional = predicted.chunk(2)[::order]
        guided = unconditional + SCALE * (conditional - unconditional)
        latents = scheduler.step(guided, t, latents).prev_sample
    return latents


class Published(nn.Module):
    """FasterCache's CFG-Cache as its authors write it, with shifted FFTs."""

    def __init__(self, unet: nn.Module, cache: GuidanceCache):
        super().__init__()
        self.unet, self.cache, self.step = unet, cache, 0
        self.batches: list[int] = []

    def low(self, spectrum: Tensor) -> Tensor:
        height, width = spectrum.shape[-2:]
        mask = torch.zeros(height, width)
        for i in range(height):
            for j in range(width):
                distance = math.hypot(i - height // 2, j - width // 2)
                mask[i, j] = distance <= min(height, width) // 5
        return spectrum * mask

    def spectrum(self, value: Tensor) -> Tensor:
        return torch.fft.fftshift(torch.fft.fft2(value), dim=(-2, -1))

    def forward(self, sample: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Any:
        start = math.ceil(self.cache.start * STEPS)
        both = self.step < start or (self.step - start) % self.cache.interval == 0
        half = len(sample) // 2
        early = self.step < self.cache.turn * STEPS
        self.step += 1
        text = encoder_hidden_states
        if both:
            self.batches.append(2 * half)
            result = self.unet(sample, t, encoder_hidden_states=text)
            u, c = (self.spectrum(part) for part in result.sample.chunk(2))
            self.delta_low = self.low(u) - self.low(c)
            self.delta_high = (u - self.low(u)) - (c - self.low(c))
            return result
        self.batches.append(half)
        result = self.unet(sample[half:], t, encoder_hidden_states=text[half:])
        c = self.spectrum(result.sample)
        w1 = 1 + (self.cache.low if early else 0)
        w2 = 1 + (0 if early else self.cache.high)
        u = self.low(c) + w1 * self.delta_low + (c - self.low(c)) + w2 * self.delta_high
        rebuilt = torch.fft.ifft2(torch.fft.ifftshift(u, dim=(-2, -1))).real
        result.sample = torch.cat([rebuilt, result.sample])
        return result


@pytest.mark.sweep(1)
@pytest.mark.parametrize("count", [1, 3])
def test_guidance_equals_the_published_rule(count):
    plain = Published(tiny.small_unet(), CACHE)
    expected = sample(plain, *pictures(count))
    unet = fxcache.optimize(tiny.small_unet(), policy=ALWAYS, guidance=CACHE)
    found = sample(unet, *pictures(count))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert [2 * count if not s.half else count for s in steps(unet)] == plain.batches
    assert not torch.allclose(found, sample(tiny.small_unet(), *pictures(count)), atol=1e-2)


def steps(model: nn.Module) -> list[Any]:
    engine = optimized_engine(model)
    return engine.runs[-1].steps


def test_both_halves_at_every_step_change_nothing():
    unet = fxcache.optimize(tiny.small_unet(), policy=ALWAYS, guidance=GuidanceCache(interval=1))
    expected = sample(tiny.small_unet(), *pictures())
    assert torch.equal(sample(unet, *pictures()), expected)
    assert torch.equal(sample(unet, *pictures()), expected), "a second run"


def test_the_conditional_half_may_come_first():
    first = GuidanceCache(interval=4, start=0.3, conditional="first")
    expected = sample(fxcache.optimize(tiny.small_unet(), guidance=CACHE), *pictures())
    unet = fxcache.optimize(tiny.small_unet(), guidance=first)
    torch.testing.assert_close(sample(unet, *pictures(), order=-1), expected, rtol=1e-4, atol=1e-4)


def test_a_reuse_step_reads_the_cached_conditional_half():
    """Compared with DeepCache on the conditional half alone, whose other half is rebuilt."""
    cache = GuidanceCache(interval=5, start=0.25, low=0, high=0)
    unet = fxcache.optimize(tiny.small_unet(), policy=Uniform(3), guidance=cache)
    found = sample(unet, *pictures())
    refreshed = [i for i, s in enumerate(steps(unet)) if s.decision.refresh]
    assert refreshed == sorted({*range(0, STEPS, 3), *range(5, STEPS, 5)})
    assert [i for i, s in enumerate(steps(unet)) if not s.half] == [0, 1, 2, 3, 4, 5, 10, 15]
    halves = [deep_cached(refreshed) for _ in range(2)]
    expected = sample(Simple(*halves), *pictures())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def deep_cached(refreshed: list[int]) -> nn.Module:
    policy = fxcache.Explicit(steps=tuple(refreshed))
    return fxcache.optimize(tiny.small_unet(), policy=policy)


class Simple:
    """Two models of one half each. Between steps that compute both, u is c plus the difference."""

    def __init__(self, *models: nn.Module):
        self.models, self.step, self.difference = models, 0, torch.zeros(())

    def __call__(self, sample: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Any:
        both = self.step < 5 or self.step % 5 == 0
        self.step += 1
        halves = zip(self.models, sample.chunk(2), self.parts(encoder_hidden_states), strict=True)
        u, c = (m(x, t, encoder_hidden_states=text) for m, x, text in halves)
        if both:
            self.difference = u.sample - c.sample
        c.sample = torch.cat([c.sample + self.difference, c.sample])
        return c

    def parts(self, text: Tensor) -> tuple[Tensor, ...]:
        """Return the same objects at each call, so that the calls belong together."""
        if not hasattr(self, "text"):
            self.text = text.chunk(2)
        return self.text


def test_flops_count_the_halves_that_ran():
    unet = fxcache.optimize(tiny.small_unet(), policy=ALWAYS, guidance=CACHE, hoist=None)
    sample(unet, *pictures())
    whole, half = ({s.flops for s in steps(unet) if s.half is kind} for kind in (False, True))
    assert len(whole) == len(half) == 1
    assert max(whole) == pytest.approx(2 * max(half), rel=0.01)
    assert {s.full_flops for s in steps(unet)} == whole
    halved = sum(s.half for s in steps(unet))
    run = fxcache.report(unet).runs[-1]
    assert run.halved == [i for i, s in enumerate(steps(unet)) if s.half]
    assert run.ideal_speedup == pytest.approx(STEPS / (STEPS - halved / 2), rel=0.01)


def test_a_signal_is_compared_within_the_conditional_half():
    """What a step of both observes is the reference of the steps of one: none is without a number.

    A threshold that is never reached leaves the refreshes to the steps of both.
    """
    policy = FirstBlock(1e6, max_reuses=STEPS)
    unet = fxcache.optimize(tiny.small_unet(), policy=policy, guidance=CACHE)
    sample(unet, *pictures())
    assert [i for i, s in enumerate(steps(unet)) if s.decision.refresh] == [0, 6, 10, 14, 18]


def test_a_forecast_continues_through_steps_of_both_halves():
    """All steps but one refresh. The last computes both halves."""
    cache = GuidanceCache(interval=4, start=0.35, low=0, high=0)
    unet = fxcache.optimize(
        tiny.small_unet(),
        policy=fxcache.Explicit(steps=tuple(set(range(STEPS)) - {12})),
        forecast=fxcache.Taylor(1),
        guidance=cache,
    )
    sample(unet, *pictures())
    assert not steps(unet)[-1].half
    branch = optimized_engine(unet).store.trajectories[0]
    entry = branch.cache.entries[0]
    assert entry.steps == (19, 18)


@pytest.mark.usefixtures("clean_dynamo")
def test_four_graphs_and_no_recompilation():
    """There are two variants for one half, and two for the whole batch."""
    counter = CompileCounterWithBackend("eager")
    unet = fxcache.optimize(tiny.small_unet(), policy=Uniform(3), guidance=CACHE)
    expected = sample(unet, *pictures())
    fxcache.restore(unet)
    fxcache.optimize(unet, policy=Uniform(3), guidance=CACHE)
    unet.compile(backend=counter, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert torch.equal(sample(unet, *pictures()), expected)
        sample(unet, *pictures())
    assert counter.frame_count == 4


def test_another_prompt_drops_the_difference():
    unet = fxcache.optimize(tiny.small_unet(), guidance=CACHE)
    latents, text = pictures()
    sample(unet, latents, text)
    again = sample(unet, latents, 2 * text)
    alone = fxcache.optimize(tiny.small_unet(), guidance=CACHE)
    assert torch.equal(again, sample(alone, latents, 2 * text))


@torch.no_grad()
def test_latents_that_differ_are_computed_whole():
    """Two images from one seed without guidance are equal at first, but are not halves."""
    unet = fxcache.optimize(tiny.small_unet(), policy=ALWAYS, guidance=CACHE)
    results = []
    for model in (unet, tiny.small_unet()):
        scheduler = ddim()
        scheduler.set_timesteps(STEPS)
        latents, text = torch.cat([pictures(1)[0]] * 2), pictures(1)[1]
        for t in scheduler.timesteps:
            if model is unet and t == scheduler.timesteps[1]:
                with pytest.warns(FxcacheWarning, match="same latents twice"):
                    predicted = model(latents, t, encoder_hidden_states=text).sample
            else:
                predicted = model(latents, t, encoder_hidden_states=text).sample
            latents = scheduler.step(predicted, t, latents).prev_sample
        results.append(latents)
    assert torch.equal(*results)


class Coupled(nn.Module):
    """A denoiser whose prediction for an image depends on the rest of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny.small_unet()

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        mean = encoder_hidden_states.mean(0, keepdim=True)
        text = encoder_hidden_states + mean
        return self.inner(sample, timestep, encoder_hidden_states=text)


def test_halves_that_depend_on_each_other_are_refused():
    model = fxcache.optimize(Coupled().eval(), policy=ALWAYS, guidance=CACHE)
    with pytest.raises(CutError, match="halves of the batch cannot be computed separately"):
        sample(model, *pictures())


def test_without_a_known_length_both_halves_are_computed():
    unet, plain = fxcache.optimize(tiny.small_unet(), guidance=CACHE), tiny.small_unet()
    latents, text = pictures()
    batch = torch.cat([latents] * 2)
    with torch.no_grad(), pytest.warns(FxcacheWarning, match="GuidanceCache needs"):
        got = unet(batch, 900, encoder_hidden_states=text).sample
    with torch.no_grad():
        assert torch.equal(got, plain(batch, 900, encoder_hidden_states=text).sample)


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0},
        {"start": 1.5},
        {"turn": -0.1},
        {"low": math.nan},
        {"high": -1},
        {"conditional": "third"},
    ],
)
def test_options_are_validated(options):
    with pytest.raises(ConfigError):
        GuidanceCache(**options)


def test_a_wrong_type_of_guidance_is_refused():
    with pytest.raises(ConfigError, match="guidance"):
        fxcache.optimize(tiny.small_unet(), guidance=5)  # type: ignore[arg-type]


def test_the_first_two_steps_compute_both():
    """These steps show whether the halves have the same latents."""
    cache = GuidanceCache(start=0)
    assert [cache.computes_both(Step(i, 20)) for i in range(4)] == [True, True, True, False]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("count", [1, 2])
@torch.no_grad()
def test_latents_of_another_size_are_computed_whole_first(count):
    """The images grow during the run, so that the old difference does not fit."""
    unet = fxcache.optimize(tiny.small_unet(), policy=ALWAYS, guidance=CACHE)
    scheduler = ddim()
    scheduler.set_timesteps(STEPS)
    latents, text = pictures(count)
    for i, t in enumerate(scheduler.timesteps):
        if i == 12:
            latents = torch.nn.functional.interpolate(latents, scale_factor=2)
        predicted = unet(torch.cat([latents] * 2), t, encoder_hidden_states=text).sample
        assert predicted.shape == (2 * count, *latents.shape[1:])
        u, c = predicted.chunk(2)
        latents = scheduler.step(u + SCALE * (c - u), t, latents).prev_sample
    halved = fxcache.report(unet).runs[-1].halved
    assert 11 in halved
    assert 12 not in halved
    assert 13 in halved


class Folding(nn.Module):
    """Also returns its rows folded into the batch, and a table with as many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny.small_unet()

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        predicted = self.inner(sample, timestep, encoder_hidden_states=encoder_hidden_states).sample
        table = torch.ones(4, 3, 2, 2) * timestep
        return predicted, predicted.flatten(0, 1)[:, None], table


@torch.no_grad()
def test_outputs_with_halves_are_found_by_comparison():
    model = fxcache.optimize(Folding().eval(), policy=ALWAYS, guidance=CACHE)
    scheduler = ddim()
    scheduler.set_timesteps(STEPS)
    latents, text = pictures(2)
    for t in scheduler.timesteps:
        predicted, folded, table = model(torch.cat([latents] * 2), t, text)
        assert predicted.shape == (4, 4, 16, 16)
        torch.testing.assert_close(folded, predicted.flatten(0, 1)[:, None])
        assert torch.equal(table, torch.ones(4, 3, 2, 2) * t)
        u, c = predicted.chunk(2)
        latents = scheduler.step(u + SCALE * (c - u), t, latents).prev_sample
    assert fxcache.report(model).runs[-1].halved


@torch.no_grad()
def test_inseparable_halves_are_refused_at_the_first_call():
    model = fxcache.optimize(Coupled().eval(), policy=ALWAYS, guidance=CACHE)
    scheduler = ddim()
    scheduler.set_timesteps(STEPS)
    latents, text = pictures(1)
    with pytest.raises(CutError, match="halves of the batch cannot be computed separately"):
        model(torch.cat([latents] * 2), scheduler.timesteps[0], text)


class Fixed(Coupled):
    """Expects two texts."""

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        first, second = encoder_hidden_states.unbind()
        text = torch.stack([first, second])
        return self.inner(sample, timestep, encoder_hidden_states=text)


@torch.no_grad()
def test_a_model_that_rejects_half_a_batch_is_refused():
    model = fxcache.optimize(Fixed().eval(), policy=ALWAYS, guidance=CACHE)
    scheduler = ddim()
    scheduler.set_timesteps(STEPS)
    latents, text = pictures(1)
    with pytest.raises(CutError, match="half the batch cannot be captured") as refused:
        model(torch.cat([latents] * 2), scheduler.timesteps[0], text)
    assert "guidance=" in str(refused.value)
