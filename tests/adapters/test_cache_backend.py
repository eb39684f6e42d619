"""Tests the cache backend with a stand-in for the server that follows its published interface."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.adapters.cache_backend import CacheBackend
from tests.deploy.test_round_trip import STEPS, denoised
from tests.engines import optimized_engine
from tests.loops import refreshes
from tests.plain import dit

pytestmark = pytest.mark.usefixtures("shared_captures")


class Pipeline(nn.Module):
    """A pipeline of a server: a module with a denoiser among its children."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer, self.text_encoder = dit(3), nn.Linear(2, 2)

    def forward(self, seed: int) -> list[Tensor]:
        return denoised(self.transformer, seed=seed)


class Server:
    """Calls a backend as vLLM-Omni documents it: once at the start, and before each generation."""

    def __init__(self, backend: Any) -> None:
        self.pipeline: Any = Pipeline().eval()
        self.backend = backend
        backend.enable(self.pipeline)

    def generate(self, seed: int, steps: int = STEPS) -> list[Tensor]:
        if self.backend.is_enabled():
            self.backend.refresh(self.pipeline, steps, verbose=False)
        return list(self.pipeline.forward(seed))


def test_each_generation_is_a_run_of_known_length():
    server = Server(CacheBackend())  # the default policy needs the length
    found = [server.generate(seed) for seed in range(2)]
    model = fxcache.optimize(dit(3))
    for seed in range(2):
        with fxcache.session(model, num_steps=STEPS):
            assert all(map(torch.equal, found[seed], denoised(model, seed=seed)))
    assert refreshes(server.pipeline.transformer) == refreshes(model)
    assert len(refreshes(model)[0]) < STEPS


def test_options_are_those_of_optimize():
    server = Server(CacheBackend({"policy": fxcache.Uniform(4), "hoist": None}))
    server.generate(0)
    assert refreshes(server.pipeline.transformer) == [[0, 4]]
    with pytest.raises(TypeError, match="threshold"):
        Server(CacheBackend({"threshold": 3}))


def test_a_generation_that_stopped_early_leaves_nothing_behind():
    server = Server(CacheBackend({"policy": fxcache.Uniform(3)}))
    server.backend.refresh(server.pipeline, STEPS)
    with torch.no_grad():
        server.pipeline.transformer(torch.ones(2, 16, 4), torch.tensor(9.0), torch.ones(2, 5, 16))
    expected = Server(CacheBackend({"policy": fxcache.Uniform(3)})).generate(1)
    assert all(map(torch.equal, server.generate(1), expected))


def test_a_generation_frees_what_it_cached_when_it_returns_or_fails():
    server = Server(CacheBackend({"policy": fxcache.Uniform(3)}))
    store = optimized_engine(server.pipeline.transformer).store
    kept: list[int] = []
    transformer = server.pipeline.transformer
    transformer.register_forward_hook(lambda *_: kept.append(len(store.trajectories)))
    server.generate(0)
    assert kept == [1] * STEPS
    assert store.trajectories == []
    transformer.register_forward_hook(cancel)
    with pytest.raises(RuntimeError, match="cancelled"):
        server.generate(1)
    assert kept == [1] * (STEPS + 1)
    assert store.trajectories == []


def cancel(*_: object) -> None:
    raise RuntimeError("cancelled")


def test_disabled_it_leaves_the_pipeline_as_it_was():
    backend = CacheBackend()
    server = Server(backend)
    server.generate(0)
    backend.enable(server.pipeline)
    backend.disable(server.pipeline)
    assert "forward" not in vars(server.pipeline)
    assert not backend.is_enabled()
    assert type(server.pipeline.transformer) is type(dit())
    assert all(map(torch.equal, server.generate(0), denoised(dit(3))))
    with pytest.raises(fxcache.StateError, match="not enabled"):
        backend.refresh(server.pipeline, STEPS)
    server.pipeline.forward = own = partial(denoised, server.pipeline.transformer)
    backend.enable(server.pipeline)
    backend.disable(server.pipeline)
    assert server.pipeline.forward is own


def test_a_pipeline_without_a_denoiser_is_refused():
    with pytest.raises(fxcache.ConfigError, match="no denoiser among 0"):
        CacheBackend().enable(nn.Sequential(nn.Linear(2, 2)))
