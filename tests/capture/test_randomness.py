"""Tests that no graph holds random numbers, sets seeds or leaves out draws without a word.

Other threads may draw and set seeds during a capture.
"""

import random
import threading
from collections.abc import Callable

import numpy as np
import numpy.random  # NumPy would load it at the first draw, after the state was compared
import pytest
import torch
from torch import Tensor, manual_seed

import fxcache
from fxcache.capture.randomness import GeneratorStates
from tests.capture.prepared import Prepared, calls, captured, refusal

DRAWS = {
    "NumPy's array": lambda x, t: x + torch.from_numpy(numpy.random.rand(4).astype(np.float32)),
    "NumPy's number": lambda x, t: x * float(numpy.random.rand()),
    "Python's number": lambda x, t: x * random.random(),
}


@pytest.mark.parametrize("prepare", DRAWS.values(), ids=list(DRAWS))
def test_random_constants_are_refused(prepare):
    before = GeneratorStates()
    assert "random numbers" in refusal(prepare).what
    assert GeneratorStates() == before


def test_draws_of_other_threads_are_accepted():
    def draw_elsewhere(x: Tensor, _: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: (random.random(), numpy.random.rand()))
        thread.start()
        thread.join()
        return x + torch.from_numpy(np.arange(4, dtype=np.float32))

    before = GeneratorStates()
    assert captured(Prepared(draw_elsewhere).eval(), *calls()[0]).weights
    assert GeneratorStates() != before


def test_torch_draws_at_every_call():
    """A graph can express draws of torch."""
    program = captured(Prepared(lambda x, t: x + torch.rand_like(x)).eval(), *calls()[0])
    assert any("rand" in str(node.target) for node in program.graph.nodes)


def forked(x: Tensor, _: Tensor) -> Tensor:
    with torch.random.fork_rng():
        return x + torch.rand_like(x)


def seeded(x: Tensor, seed: Callable[[], object]) -> Tensor:
    seed()
    return x + torch.rand_like(x)


SEEDS = {
    "manual_seed": lambda x, _: seeded(x, lambda: torch.manual_seed(3)),
    "another name": lambda x, _: seeded(x, lambda: manual_seed(3)),
    "seed": lambda x, _: seeded(x, torch.seed),
    "generator": lambda x, _: seeded(x, lambda: torch.default_generator.manual_seed(3)),
    "state": lambda x, _: seeded(x, lambda: torch.set_rng_state(torch.get_rng_state())),
    "fork_rng": forked,
}


@pytest.mark.parametrize("prepare", SEEDS.values(), ids=list(SEEDS))
def test_seeds_are_refused(prepare):
    model = Prepared(prepare).eval()
    before, names = torch.get_rng_state(), vars(torch.random).copy()
    with pytest.raises(fxcache.CaptureError, match="sets the seed") as caught:
        captured(model, *calls()[0])
    assert "test_randomness.py" in caught.value.where
    assert torch.equal(torch.get_rng_state(), before)
    assert vars(torch.random) == names


def test_a_generator_of_the_model_is_refused():
    generator = torch.Generator()
    found = refusal(lambda x, _: x + torch.randn(x.shape, generator=generator))
    assert "generator of its own" in found.what
    assert "test_randomness.py" in found.where


def test_other_threads_may_set_seeds():
    def seed_elsewhere(x: Tensor, _: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: torch.manual_seed(77))
        thread.start()
        thread.join()
        return x

    captured(Prepared(seed_elsewhere).eval(), *calls()[0])
    assert torch.initial_seed() == 77


def unused(x: Tensor, _: Tensor) -> Tensor:
    torch.bernoulli(x.sigmoid())
    torch._assert_async((x < 9).all())
    return x + torch.rand_like(x)


def unused_beside_a_write(x: Tensor, t: Tensor) -> Tensor:
    written = torch.empty_like(x).normal_()
    written[0] = 0
    return unused(x, t) + written


def unused_and_written(x: Tensor, t: Tensor) -> Tensor:
    torch.bernoulli(x.sigmoid()).add_(1)
    with torch.autocast("cpu", enabled=False):
        torch._assert_async((x < 9).all())
    return x + torch.rand_like(x)


def used(x: Tensor, _: Tensor) -> Tensor:
    torch.nn.functional.dropout(x + 1, 0.5, training=False, inplace=True)
    copied = torch.nn.functional.dropout(x + 1, 0.5, training=True, inplace=True)
    copied[0] = torch.empty_like(copied[0]).uniform_()
    return copied


@torch.no_grad()
def test_draws_with_a_use_are_not_named():
    model = fxcache.optimize(Prepared(used).eval(), fxcache.Uniform(2))
    model(*calls()[0])
    assert not fxcache.report(model).notices


@pytest.mark.parametrize("prepare", [unused, unused_beside_a_write, unused_and_written])
@torch.no_grad()
def test_calls_without_a_use_are_named(prepare):
    model = fxcache.optimize(Prepared(prepare).eval(), fxcache.Uniform(2))
    with pytest.warns(fxcache.FxcacheWarning, match=r"leave out .*: bernoulli, _assert_async\."):
        model(*calls()[0])
    (notice,) = fxcache.report(model).notices
    assert "rand_like" not in notice
    assert "normal" not in notice
