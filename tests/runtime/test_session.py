"""Tests the identification of callers: positions, branches, sessions and keys."""

import copy
import pickle
import threading
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import fxcache
from fxcache.runtime.trajectory.position import Element, Number, Place, Unknown, position_of
from tests import tiny
from tests.engines import optimized_engine
from tests.loops import last_reason, refreshes, sample, steps
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

POLICY = fxcache.Uniform(interval=3)


def moving(
    model: torch.nn.Module, timesteps: Iterable[Any], inputs: dict[str, torch.Tensor]
) -> None:
    """Run a sampling loop in which each step changes the latent a little."""
    inputs = dict(inputs)
    for timestep in timesteps:
        predicted = model(timestep=timestep, **inputs).sample
        inputs["sample"] = inputs["sample"] - 0.1 * predicted


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return tiny.small_unet()


@pytest.fixture
def optimized(unet):
    yield fxcache.optimize(unet, policy=POLICY)
    fxcache.restore(unet)


def element(timestep: torch.Tensor) -> Element:
    position = position_of(timestep)
    assert isinstance(position, Element)
    return position


@torch.no_grad()
@pytest.mark.parametrize("inference_mode", [False, True])
def test_an_element_of_a_timesteps_tensor(inference_mode):
    with torch.inference_mode(inference_mode):
        timesteps = torch.arange(10, 0, -1)
        first, second, *_ = timesteps
        positions = [element(first), element(second), element(second.expand(4))]
        assert [p.offset for p in positions] == [0, 1, 1]
        assert all(p.length == 10 for p in positions)
        assert positions[0].same_schedule(positions[1])
        other = element(torch.arange(10, 0, -1)[0])
        assert not positions[0].same_schedule(other)


def test_positions_that_are_no_element():
    assert position_of(7) == Number(7.0)
    assert position_of(torch.tensor(7)) == Number(7.0)
    assert position_of(torch.full((3,), 7.0)) == Number(7.0)
    assert position_of(torch.ones((), device="meta")) == Unknown()
    assert position_of(None) == Unknown()


def test_the_best_source_of_the_place_wins():
    timesteps, told = torch.arange(3.0), Place(7, 9)
    assert isinstance(position_of(timesteps[1], told), Element)
    assert position_of(torch.tensor(5.0), told) == told
    assert position_of(torch.tensor([[0.0, 5.0]])) == Number(5.0), "what is given has 0"
    assert position_of(torch.ones((), device="meta"), told) == told


@pytest.mark.sweep(1)
@torch.no_grad()
@pytest.mark.parametrize("numbers", [(100, 300, 500, 700, 900), (900, 700, 500, 300, 100)])
@pytest.mark.parametrize("made", [int, torch.tensor, lambda t: torch.full((2,), t)])
def test_numbers_that_rise_or_fall_are_one_run(optimized, numbers, made):
    for seed in range(2):
        moving(optimized, map(made, numbers), tiny.inputs(seed=seed))
    assert refreshes(optimized) == [[0, 3], [0, 3]]


@torch.no_grad()
@pytest.mark.sweep(1)
@pytest.mark.parametrize("first", [500, 999])
def test_a_warm_up_call_is_a_separate_run(optimized, first):
    inputs = tiny.inputs()
    optimized(timestep=first, **inputs)
    moving(optimized, (900, 700, 500, 300), inputs)
    assert refreshes(optimized) == [[0], [0, 3]]


def test_a_dead_timesteps_tensor_is_known_to_be_dead():
    timesteps = torch.arange(3)
    position = element(timesteps[1])
    del timesteps
    assert position.same_schedule(element(torch.arange(3)[1])) is None


@torch.no_grad()
def test_a_jump_back_starts_a_run(optimized):
    inputs = tiny.inputs()
    for _ in range(2):
        moving(optimized, (900, 700, 500, 300, 100), inputs)
    assert refreshes(optimized) == [[0, 3], [0, 3]]


@torch.no_grad()
def test_a_repeated_number_with_another_latent_is_another_request(optimized):
    inputs = tiny.inputs()
    optimized(timestep=900, **inputs)
    other = inputs | {"sample": inputs["sample"] + 1}
    got = optimized(timestep=900, **other).sample
    assert torch.equal(got, tiny.small_unet()(timestep=900, **other).sample)
    assert last_reason(optimized) == "a latent unlike any other's"


@torch.no_grad()
def test_a_restarted_loop_is_a_new_run(optimized):
    inputs = tiny.inputs()
    timesteps = torch.arange(900, 0, -100)
    moving(optimized, timesteps[:4], inputs)
    moving(
        optimized,
        timesteps,
        tiny.inputs(seed=5) | {"encoder_hidden_states": inputs["encoder_hidden_states"]},
    )
    assert refreshes(optimized) == [[0, 3], [0, 3, 6]]


@torch.no_grad()
def test_a_finished_loop_can_run_again_with_the_same_tensors(optimized):
    inputs = tiny.inputs()
    timesteps = torch.arange(900, 0, -100)
    for _ in range(3):
        for t in timesteps:
            optimized(timestep=t, **inputs)
    assert refreshes(optimized) == [[0, 3, 6]] * 3


@torch.no_grad()
def test_a_session_supports_two_calls_a_step(optimized):
    with fxcache.session(optimized):
        moving(optimized, (900, 700, 700, 500, 500, 300, 300), tiny.inputs())
    assert refreshes(optimized) == [[0, 3, 6]]


@torch.no_grad()
def test_a_session_knows_the_last_steps():
    unet = fxcache.optimize(tiny.small_unet(), policy=fxcache.Uniform(interval=9, last=2))
    inputs = tiny.inputs()
    with fxcache.session(unet, timesteps=[900, 700, 500, 300, 100]):
        for timestep in (900, 700, 500, 300, 100):
            unet(timestep=timestep, **inputs)
    assert refreshes(unet) == [[0, 3, 4]]


def test_the_timesteps_tensor_tells_the_length():
    unet = fxcache.optimize(tiny.small_unet(), policy=fxcache.NonUniform(interval=5))
    sample(unet, 50, **tiny.inputs())
    assert refreshes(unet) == [[0, 5, 9, 13, 17, 21, 26, 31, 37, 43]]


@torch.no_grad()
def test_a_strided_timesteps_tensor_tells_the_length_too():
    unet = fxcache.optimize(tiny.small_unet(), policy=fxcache.Uniform(interval=9, last=1))
    inputs = tiny.inputs()
    timesteps = torch.arange(1000, 0, -1)[::200]
    with fxcache.session(unet):
        for t in timesteps:
            unet(timestep=t, **inputs)
    assert refreshes(unet) == [[0, 1, 4]], "how many elements a step leaves out is new at first"


@torch.no_grad()
def test_keys_name_requests_whose_tensors_are_new_at_every_call(optimized):
    for timestep in (900, 700, 500, 300):
        for key in ("a", "b"):
            with fxcache.session(optimized, key=key):
                optimized(timestep=timestep, **tiny.inputs(seed=ord(key)))
    assert refreshes(optimized) == [[0, 3], [0, 3]]
    assert steps(optimized) == [4, 4]


@torch.no_grad()
@pytest.mark.parametrize("keyed", [True, False])
def test_too_many_requests_drop_the_oldest_with_a_warning(keyed):
    unet = fxcache.optimize(
        tiny.small_unet(), POLICY, cache=fxcache.CacheConfig(max_trajectories=5)
    )
    requests = [tiny.inputs(seed=s) for s in range(8)]

    def call(index: int) -> None:
        with fxcache.session(unet, key=index) if keyed else nullcontext():
            unet(timestep=900, **requests[index])

    for index in range(5):
        call(index)
    with pytest.warns(fxcache.FxcacheWarning, match="max_trajectories"):
        call(5)
    for index in (6, 7):
        call(index)
    report = fxcache.report(unet)
    assert report.cached_bytes == 5 * report.captures[0].cut["cache_bytes"]
    assert report.attributions.evicted == 3
    assert "3 trajectories were dropped" in str(report)


@torch.no_grad()
def test_new_prompt_tensors_are_compared_by_content(optimized):
    with fxcache.session(optimized):
        for timestep in (900, 800, 700, 600):
            optimized(timestep=timestep, **tiny.inputs())
        for timestep in (900, 800, 700, 600):
            optimized(timestep=timestep, **tiny.inputs())
    assert refreshes(optimized) == [[0, 3]] * 2


@torch.no_grad()
def test_another_prompt_at_every_call_is_exact_and_warned_of(optimized):
    plain = tiny.small_unet()
    with fxcache.session(optimized), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed, timestep in enumerate((900, 800, 700, 600, 500, 400, 300)):
            inputs = tiny.inputs(seed=seed)
            got = optimized(timestep=timestep, **inputs).sample
            assert torch.equal(got, plain(timestep=timestep, **inputs).sample)
    assert "changes at every call: encoder_hidden_states" in str(caught[0].message)


def test_requests_in_threads_on_one_module(optimized):
    alone = [sample(optimized, seed=s, **tiny.inputs(seed=s)) for s in range(4)]
    together: dict[int, torch.Tensor] = {}

    def work(seed: int) -> None:
        together[seed] = sample(optimized, seed=seed, **tiny.inputs(seed=seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[seed], alone[seed]) for seed in range(4))


def test_copies_and_pickles_stay_optimised(optimized):
    expected = sample(optimized, **tiny.inputs())
    for twin in (copy.deepcopy(optimized), pickle.loads(pickle.dumps(optimized))):
        assert fxcache.report(twin).captures == []
        assert torch.equal(sample(twin, **tiny.inputs()), expected)
        assert refreshes(twin) == [[0, 3, 6, 9]]


def test_a_known_shape_is_not_captured_again(optimized):
    sample(optimized, 2, **tiny.inputs())
    engine = optimized_engine(optimized)
    captured = list(engine.captures.values())
    sample(optimized, 2, **tiny.inputs(batch=1))
    sample(optimized, 2, **tiny.inputs())
    assert len(engine.captures) == 2
    assert captured[0] in engine.captures.values()


@pytest.mark.filterwarnings("ignore:some calls may belong:fxcache.FxcacheWarning")
@torch.no_grad()
def test_tiles_that_begin_alike_part_without_reading_one_another():
    """Their first latents are equal, and so are their prompts; the timesteps are numbers."""
    model, plain, inputs = fxcache.optimize(dit(), fxcache.Uniform(100)), dit(), dit_inputs()
    latents = [inputs.pop("sample")] * 2
    drift = [0.1 * torch.randn(latents[0].shape, generator=seeded(i)) for i in range(2)]
    with fxcache.session(model):
        for t in (900.0, 700.0, 500.0, 300.0):
            reasons = []
            for i, latent in enumerate(latents):
                got = model(latent, torch.tensor(t), **inputs)
                reasons.append(last_reason(model))
                if t == 700.0 and i == 1:
                    assert torch.equal(got, plain(latent, torch.tensor(t), **inputs))
                latents[i] = latent - 0.1 * got + drift[i]
    assert reasons == ["every 100 steps"] * 2, "both reuse again"


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)
