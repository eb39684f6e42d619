"""Tests that offloading changes no result, and that each step gets the weights it reads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.runtime import captures
from tests import tiny
from tests.loops import guided_sample, refreshes, sample
from tests.plain import denoised, dit, dit_inputs
from tests.runtime.offloaded import ALWAYS, TEACACHE, away

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.mark.parametrize("hoist", ["once", "table"])
@pytest.mark.parametrize("policy", [ALWAYS, fxcache.Uniform(3), TEACACHE])
def test_offloading_does_not_change_results(host, hoist, policy):
    model = fxcache.optimize(
        dit(), policy=policy, hoist=hoist, cache=fxcache.CacheConfig(offload=True)
    )
    plain = fxcache.optimize(dit(), policy=policy, hoist=hoist)
    for seed in range(3):
        assert torch.equal(denoised(model, seed=seed), denoised(plain, seed=seed))
        texts = {f"layers.{i}.key_value.weight" for i in range(4)}
        assert texts <= away(model)
        assert ("layers.0.modulation.weight" in away(model)) is (hoist == "table")
        report = fxcache.report(model)
        sizes = {name: weight.nbytes for name, weight in model.named_parameters()}
        assert report.offloaded_bytes == sum(sizes[name] for name in away(model)) > 0
    assert host.fetches >= 3 * len(texts)


def test_another_shape_is_captured_with_all_weights_in_place(host, monkeypatch):
    def checked(module: nn.Module, *args: Any) -> Any:
        assert not away(module)
        return capture(module, *args)

    capture = vars(captures)["capture"]
    monkeypatch.setattr(captures, "capture", checked)
    model = fxcache.optimize(
        dit(), policy=ALWAYS, hoist="once", cache=fxcache.CacheConfig(offload=True)
    )
    for batch in (1, 2, 1):
        inputs = dit_inputs(batch=batch)
        assert torch.equal(denoised(model, **inputs), denoised(dit(), **inputs))
        assert away(model)


@torch.no_grad()
def test_a_step_that_needs_offloaded_weights_gets_them(host):
    """Values of a prompt that is rewritten during a run are not hoisted."""
    model, plain = (
        fxcache.optimize(
            dit(), policy=ALWAYS, hoist="once", cache=fxcache.CacheConfig(offload=True)
        ),
        dit(),
    )
    inputs = dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for step, t in enumerate(torch.linspace(900, 100, 5)):
            if step == 3:
                inputs["text"].mul_(2)
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
            assert bool(away(model)) is (step < 3)


@torch.no_grad()
def test_runs_with_and_without_known_timesteps_are_exact(host):
    """The timesteps are numbers: the first run of a schedule reads modulations at every step."""
    model, plain = (
        fxcache.optimize(
            dit(), policy=ALWAYS, hoist="table", cache=fxcache.CacheConfig(offload=True)
        ),
        dit(),
    )
    for seed, (steps, waits) in enumerate([(4, False), (4, True), (7, False), (7, True)]):
        inputs = dit_inputs(seed=seed)
        for t in torch.linspace(900, 150, steps).tolist():
            found = model(timestep=t, **inputs)
            expected = plain(timestep=torch.tensor(t), **inputs)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert bool(away(model)) is waits


def test_two_kinds_of_call_with_different_weights_are_exact(host):
    """Calls with and without text from inference mode, which is not hoisted, take turns."""
    model, plain = (
        fxcache.optimize(
            dit(), policy=ALWAYS, hoist="once", cache=fxcache.CacheConfig(offload=True)
        ),
        dit(),
    )
    tracked = dit_inputs()
    with torch.inference_mode():
        untracked = dit_inputs(batch=1, seed=1)
    with torch.no_grad(), pytest.warns(match="inference mode"):  # noqa: PT031
        for t in torch.linspace(900, 100, 4):
            for inputs in (tracked, untracked):
                assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))


@torch.no_grad()
def test_weights_hoisted_for_one_kind_of_call_serve_another(host):
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.text, self.last = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor, t: Tensor, text: Tensor, again: bool = False) -> Tensor:
            x = self.first(x)
            found: Tensor = self.last(self.deep(x) + x * t) + self.text(text)
            return self.text(found) if again else found

    model = fxcache.optimize(
        Forked().eval(),
        cut="deep",
        hoist="once",
        policy=fxcache.Uniform(1),
        cache=fxcache.CacheConfig(offload=True),
    )
    plain, x = Forked().eval(), torch.ones(3, 4)
    schedule, again = torch.linspace(900, 100, 6), torch.linspace(900, 100, 6)
    texts = {False: torch.ones(3, 4), True: torch.zeros(3, 4)}
    for step in range(6):
        if step % 2 == 0:
            schedule = schedule.clone()  # another run begins, and sends the weights away
        for kind, timesteps in ((False, schedule), (True, again)):
            given = (x, timesteps[step], texts[kind])
            assert torch.equal(model(*given, again=kind), plain(*given, again=kind))


@torch.no_grad()
def test_unidentified_callers_are_exact(host):
    class Unconditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))
            self.time, self.more = nn.Linear(1, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            x = self.first(x)
            emb = self.more(self.time(t.reshape(1) / 1000))
            found: Tensor = self.last(self.deep(x) + emb + x)
            return found

    model = fxcache.optimize(
        Unconditional().eval(), cut="deep", hoist="table", cache=fxcache.CacheConfig(offload=True)
    )
    x = torch.ones(3, 4)
    for t in torch.linspace(900, 100, 3):
        model(x, t)
    assert {"time.weight", "more.weight"} <= away(model)
    expected = Unconditional().eval()(x, torch.tensor(50.0))
    assert torch.equal(model(x, torch.tensor(50.0)), expected)


def test_guidance_that_runs_half_the_batch(host):
    options: dict[str, Any] = {"guidance": fxcache.GuidanceCache(interval=3, start=0.2)}
    expected = guided_sample(fxcache.optimize(tiny.small_unet(), **options))
    model = fxcache.optimize(
        tiny.small_unet(), hoist="once", cache=fxcache.CacheConfig(offload=True), **options
    )
    assert torch.equal(guided_sample(model), expected)
    assert away(model)


def test_precomputed_signals_use_offloaded_weights(host):
    """Signals are computed with the graph of a whole step's prefix."""
    options: dict[str, Any] = {"policy": fxcache.TeaCache(2.0, coefficients=(1.0, 0.0))}
    unets = [fxcache.optimize(tiny.small_unet(), **options)]
    unets.append(
        fxcache.optimize(
            tiny.small_unet(), hoist="table", cache=fxcache.CacheConfig(offload=True), **options
        )
    )
    for seed in range(2):
        expected, found = (sample(unet, 6, **tiny.inputs(seed=seed)) for unet in unets)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert refreshes(unets[0]) == refreshes(unets[1])
    assert all(len(run) < 6 for run in refreshes(unets[1]))
    assert away(unets[1])
