"""Who calls: positions, branches, sessions and keys."""

import copy
import pickle
import threading

import pytest
import torch

import fxcache
from fxcache.runtime.position import Element, Number, Place, Unknown, position_of
from tests import tiny
from tests.loops import last_reason, refreshes, sample, steps

POLICY = fxcache.Uniform(interval=3)


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return tiny.small_unet()


@pytest.fixture
def optimized(unet):
    yield fxcache.optimize(unet, policy=POLICY)
    fxcache.restore(unet)


@torch.no_grad()
@pytest.mark.parametrize("inference_mode", [False, True])
def test_an_element_of_a_timesteps_tensor(inference_mode):
    with torch.inference_mode(inference_mode):
        timesteps = torch.arange(10, 0, -1)
        first, second, *_ = timesteps
        positions = [position_of(first), position_of(second), position_of(second.expand(4))]
        assert [p.offset for p in positions] == [0, 1, 1]
        assert all(isinstance(p, Element) and p.length == 10 for p in positions)
        assert positions[0].same_schedule(positions[1])
        other = position_of(torch.arange(10, 0, -1)[0])
        assert not positions[0].same_schedule(other)


def test_positions_that_are_no_element():
    assert position_of(7) == Number(7.0)
    assert position_of(torch.tensor(7)) == Number(7.0)
    assert position_of(torch.full((3,), 7.0)) == Number(7.0)
    assert position_of(torch.ones((), device="meta")) == Unknown()
    assert position_of(None) == Unknown()


def test_what_tells_the_place_best():
    timesteps, told = torch.arange(3.0), Place(7, 9)
    assert isinstance(position_of(timesteps[1], told), Element)
    assert position_of(torch.tensor(5.0), told) == told
    assert position_of(torch.tensor([[0.0, 5.0]])) == Number(5.0), "what is given has 0"
    assert position_of(torch.ones((), device="meta"), told) == told


@torch.no_grad()
def test_numbers_that_rise_are_one_run_from_their_third_on(optimized):
    inputs = tiny.inputs()
    for _ in range(2):
        for timestep in (100, 300, 500, 700, 900):
            optimized(timestep=timestep, **inputs)
    assert refreshes(optimized) == [[0, 1, 3], [0, 1, 3]]


@torch.no_grad()
def test_runs_of_one_call_are_told_apart_once_the_next_one_falls(optimized, unet):
    inputs = tiny.inputs()
    plain = tiny.small_unet()
    for timestep in (500, 900):  # a run of one call; the first of another
        assert torch.equal(
            optimized(timestep=timestep, **inputs).sample, plain(timestep=timestep, **inputs).sample
        )
    for timestep in (700, 500, 300):
        optimized(timestep=timestep, **inputs)
    assert refreshes(optimized) == [[0], [0, 3]]
    assert steps(optimized) == [1, 4]


def test_a_dead_timesteps_tensor_is_known_to_be_dead():
    timesteps = torch.arange(3)
    position = position_of(timesteps[1])
    del timesteps
    assert position.same_schedule(position_of(torch.arange(3)[1])) is None


@torch.no_grad()
def test_numbers_count_down_and_a_jump_back_starts_a_run(optimized):
    inputs = tiny.inputs()
    for _ in range(2):
        for timestep in (900, 700, 500, 300, 100):
            optimized(timestep=timestep, **inputs)
    assert refreshes(optimized) == [[0, 3], [0, 3]]


@torch.no_grad()
def test_tensors_made_anew_at_every_step_count_the_same(optimized):
    inputs = tiny.inputs()
    for _ in range(2):
        for timestep in (900, 700, 500, 300, 100):
            optimized(timestep=torch.tensor(timestep), **inputs)
    assert refreshes(optimized) == [[0, 3], [0, 3]]


@torch.no_grad()
def test_a_repeated_number_without_a_session_is_exact_and_warned_of(optimized, unet):
    inputs = tiny.inputs()
    optimized(timestep=900, **inputs)
    other = inputs | {"sample": inputs["sample"] + 1}
    with pytest.warns(fxcache.FxcacheWarning, match="timestep repeats"):
        got = optimized(timestep=900, **other).sample
    assert torch.equal(got, tiny.small_unet()(timestep=900, **other).sample)
    assert "caller unknown" in last_reason(optimized)


@torch.no_grad()
def test_a_loop_begun_again_before_its_end_might_be_two_requests(optimized):
    inputs = tiny.inputs()
    timesteps = torch.arange(900, 0, -100)
    for t in timesteps[:4]:
        optimized(timestep=t, **inputs)
    with pytest.warns(fxcache.FxcacheWarning, match="start over before their end"):
        optimized(timestep=timesteps[0], **inputs)
    for t in timesteps[1:]:
        optimized(timestep=t, **inputs)
    assert refreshes(optimized)[-1] == list(range(9))


@torch.no_grad()
def test_a_loop_run_to_its_end_may_be_run_again_with_the_same_tensors(optimized):
    inputs = tiny.inputs()
    timesteps = torch.arange(900, 0, -100)
    for _ in range(3):
        for t in timesteps:
            optimized(timestep=t, **inputs)
    assert refreshes(optimized) == [[0, 3, 6]] * 3


@torch.no_grad()
def test_a_session_vouches_for_a_solver_that_calls_twice_a_step(optimized):
    inputs = tiny.inputs()
    with fxcache.session(optimized):
        for timestep in (900, 700, 700, 500, 500, 300, 300):
            optimized(timestep=timestep, **inputs)
    assert refreshes(optimized) == [[0, 3, 6]]


@torch.no_grad()
def test_a_session_knows_the_run_is_over_soon():
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
    assert refreshes(unet) == [[0, 4]]


@torch.no_grad()
def test_keys_name_requests_whose_tensors_are_new_at_every_call(optimized):
    for timestep in (900, 700, 500, 300):
        for key in ("a", "b"):
            with fxcache.session(optimized, key=key):
                optimized(timestep=timestep, **tiny.inputs(seed=ord(key)))
    assert refreshes(optimized) == [[0, 1, 3], [0, 1, 3]]
    assert steps(optimized) == [4, 4]


@torch.no_grad()
def test_more_keys_than_the_bound_evict_the_oldest(optimized):
    fxcache.optimize(optimized, cache=fxcache.CacheConfig(max_trajectories=16))
    for key in range(40):
        with fxcache.session(optimized, key=key):
            optimized(timestep=900, **tiny.inputs())
    one = fxcache.report(optimized).captures[0].cut["cache_bytes"]
    assert fxcache.report(optimized).cached_bytes == 16 * one


@torch.no_grad()
def test_unnamed_requests_are_bounded(optimized):
    fxcache.optimize(optimized, cache=fxcache.CacheConfig(max_trajectories=8))
    requests = [tiny.inputs(seed=s) for s in range(12)]
    for inputs in requests:
        optimized(timestep=900, **inputs)
    one = fxcache.report(optimized).captures[0].cut["cache_bytes"]
    assert fxcache.report(optimized).cached_bytes == 8 * one


@torch.no_grad()
def test_tensors_made_anew_at_every_call_are_warned_of(optimized):
    with fxcache.session(optimized):
        for timestep in (900, 800, 700, 600):
            optimized(timestep=timestep, **tiny.inputs())
        with pytest.warns(fxcache.FxcacheWarning, match="made anew"):
            optimized(timestep=500, **tiny.inputs())


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


def test_a_signature_seen_again_is_not_captured_again(optimized):
    sample(optimized, 2, **tiny.inputs())
    engine = fxcache.runtime.module.engine_of(optimized)
    captured = list(engine.captures.values())
    sample(optimized, 2, **tiny.inputs(batch=1))
    sample(optimized, 2, **tiny.inputs())
    assert len(engine.captures) == 2
    assert captured[0] in engine.captures.values()
