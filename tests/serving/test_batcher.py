"""Tests that requests with a batcher get what they would get alone, and share calls."""

from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import fxcache
from fxcache.serving import Batcher
from tests.plain import dit
from tests.serving.requests import (
    CAPTURE,
    Wish,
    alone,
    assert_close,
    in_rounds,
    in_threads,
    optimized,
    overwriting,
)

pytestmark = pytest.mark.usefixtures("shared_captures")
CUTS = [f"layers.{i}.{part}" for i in range(3) for part in ("out", "mlp")]
OPTIONS: dict[str, dict[str, Any]] = {
    "Uniform": {},
    "default": {"policy": None},
    "FirstBlock": {"policy": fxcache.FirstBlock(0.3)},
    "TeaCache": {"policy": fxcache.TeaCache(0.3, coefficients=(1.0, 0.0))},
    "TaylorSeer": {"policy": fxcache.TaylorSeer(3, order=2)},
    "Hermite": {"forecast": fxcache.Hermite(order=2)},
    "int8": {"cache": fxcache.CacheConfig(dtype=torch.int8)},
    "many points": {"cut": CUTS},
    "partial": {"cache": fxcache.CacheConfig(partial_evaluation=True)},
}
WISHES = [Wish(0), Wish(1, steps=5), Wish(2, rows=2), Wish(3, steps=9)]


@pytest.mark.sweep(5)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_requests_get_what_they_get_alone(options):
    batcher = Batcher(optimized(**options))
    found, requests = in_rounds(batcher, WISHES, delays=(0, 1, 2, 4))
    assert_close(found, [alone(wish, **options) for wish in WISHES])
    assert not any(request.cached_bytes for request in requests), "closed requests cache nothing"
    assert batcher.statistics.steps == sum(wish.steps for wish in WISHES)
    assert batcher.statistics.mean_batch > 1.2


def test_requests_of_one_kind_share_every_call():
    batcher = Batcher(optimized())
    found, requests = in_rounds(batcher, [Wish(seed) for seed in range(4)])
    assert_close(found, [alone(Wish(seed)) for seed in range(4)])
    counted = batcher.statistics
    assert (counted.steps, counted.calls, counted.refreshes, counted.rows) == (32, 8, 3, 32)
    assert [request.refreshes for request in requests] == [[0, 3, 6]] * 4


def test_each_request_has_its_own_policy():
    policies = [fxcache.Uniform(3), fxcache.Uniform(1), fxcache.Explicit((0, 5)), None]
    wishes = [Wish(seed, policy=policy) for seed, policy in enumerate(policies)]
    batcher = Batcher(optimized())
    found, requests = in_rounds(batcher, wishes)
    assert_close(found, [alone(wish) for wish in wishes])
    assert [r.refreshes for r in requests] == [[0, 3, 6], [*range(8)], [0, 5], [0, 3, 6]]


def test_each_row_has_its_own_signal():
    """Requests in one call of the prefix decide by their own change."""
    always, never = fxcache.FirstBlock(1e-9), fxcache.FirstBlock(1e9)
    wishes = [Wish(0, policy=always), Wish(1, policy=never), Wish(2)]
    batcher = Batcher(optimized(policy=fxcache.FirstBlock(0.3)))
    found, requests = in_rounds(batcher, wishes)
    assert_close(found, [alone(w, policy=fxcache.FirstBlock(0.3)) for w in wishes])
    assert [r.refreshes for r in requests[:2]] == [[*range(8)], [0]]
    assert requests[2].refreshes not in ([*range(8)], [0])


def test_threads_share_calls():
    wishes = [Wish(seed, steps=6 + seed % 3) for seed in range(6)]
    with Batcher(optimized(), linger=0.05) as batcher:
        found = in_threads(batcher, wishes)
    assert_close(found, [alone(wish) for wish in wishes])
    assert batcher.statistics.mean_batch > 2


def test_batches_are_split_and_padded_to_buckets():
    sizes: list[int] = []

    def noting(module: torch.nn.Module) -> Any:
        def call(*inputs: torch.Tensor) -> Any:
            sizes.append(len(inputs[0]))
            return module(*inputs)

        return call

    batcher = Batcher(optimized(), max_batch=6, buckets=(3, 6), compiler=noting)
    wishes = [Wish(seed, steps=1) for seed in range(8)]
    found, _ = in_rounds(batcher, wishes)
    assert sizes == [6, 3]
    assert_close(found, [alone(wish) for wish in wishes])


def test_steps_of_different_kinds_do_not_share_calls():
    """The text of one request is longer, which needs another graph."""
    batcher = Batcher(optimized())
    first, second = (batcher.start(1) for _ in range(2))
    inputs = Wish(0).inputs()
    longer = torch.cat([inputs["text"]] * 2, dim=1)
    t = torch.tensor([500.0])
    some = first.submit(inputs["sample"], t, inputs["text"])
    other = second.submit(inputs["sample"], t, longer)
    assert batcher.run_round() == 2
    assert batcher.statistics.calls == 2
    assert not torch.equal(some.result(), other.result())


class Scaled(torch.nn.Module):
    """The transformer with a scale that has no rows."""

    def __init__(self) -> None:
        super().__init__()
        self.dit = dit(2)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        return self.dit(sample * scale, timestep, text)


@torch.no_grad()
def test_inputs_without_rows_must_be_equal_to_share_a_call():
    model = fxcache.optimize(Scaled().eval(), fxcache.Uniform(3), capture=CAPTURE)
    batcher = Batcher(model)
    given, t = Wish(0, rows=2).inputs(), torch.tensor([500.0, 500.0])
    scales = [torch.tensor(x) for x in (1.0, 1.0, 2.0)]
    futures = [
        batcher.start(1).submit(given["sample"], t, given["text"], scale) for scale in scales
    ]
    batcher.run_round()
    assert batcher.statistics.calls == 2
    for future, scale in zip(futures, scales, strict=True):
        expected = dit(2)(given["sample"] * scale, t, given["text"])
        torch.testing.assert_close(future.result(), expected)


@pytest.mark.parametrize("t", [torch.tensor(500.0), 500.0], ids=["scalar", "number"])
def test_one_timestep_serves_all_rows_of_a_request(t):
    batcher = Batcher(optimized())
    given = Wish(0, rows=2).inputs()
    found = batcher.start(1).submit(given["sample"], t, given["text"])
    batcher.run_round()
    with torch.no_grad():
        expected = dit(3)(given["sample"], torch.tensor(500.0), given["text"])
    torch.testing.assert_close(found.result(), expected)


def test_a_loaded_artifact_serves_requests(tmp_path):
    model = optimized()
    expected = [alone(Wish(seed)) for seed in range(2)]
    alone_again = Wish(0, rows=2).latents(model)
    assert len(alone_again) == 8
    batcher = Batcher(fxcache.load(fxcache.export(model, tmp_path / "artifact")))
    found, _ = in_rounds(batcher, [Wish(0), Wish(1)])
    assert_close(found, expected)


@pytest.mark.usefixtures("clean_dynamo")
def test_each_graph_is_compiled_once():
    counter = CompileCounter()
    batcher = Batcher(optimized(), compiler=partial(torch.compile, backend=counter, dynamic=True))
    wishes = [Wish(0), Wish(1, steps=5), Wish(2, rows=2), Wish(3, steps=9)]
    found, _ = in_rounds(batcher, wishes, delays=(0, 1, 2, 4))
    assert_close(found, [alone(wish) for wish in wishes])
    assert counter.frame_count == 2


def test_first_steps_wait_for_a_refresh_to_share_its_call():
    """Requests that begin out of step share no refresh, unless they are aligned."""
    wishes, delays = [Wish(seed, steps=12) for seed in range(4)], (0, 1, 2, 5)
    counts = {}
    for align in (0, 3):
        batcher = Batcher(optimized(), align=align)
        found, _ = in_rounds(batcher, wishes, delays)
        assert_close(found, [alone(wish) for wish in wishes])
        counts[align] = batcher.statistics
    assert counts[0].rows == counts[3].rows == 48
    assert counts[3].refreshes < counts[0].refreshes
    assert counts[3].mean_batch > 1.4 * counts[0].mean_batch


def test_new_weights_refresh_the_cache_of_running_requests():
    model = optimized()
    batcher = Batcher(model)
    request = batcher.start(6, fxcache.Explicit((0,)))
    given = Wish(0).inputs()
    results = []
    for step in range(4):
        if step == 2:
            with torch.no_grad():
                model.layers[2].mlp[2].weight.mul_(2)  # type: ignore[union-attr, index]
        future = request.submit(given["sample"], torch.tensor([500.0]), given["text"])
        batcher.run_round()
        results.append(future.result())
    assert request.refreshes == [0, 2]
    with torch.no_grad():
        restored = fxcache.restore(model)
        expected = restored(given["sample"], torch.tensor([500.0]), given["text"])
    torch.testing.assert_close(results[3], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["Uniform", "FirstBlock", "TaylorSeer"])
def test_nothing_is_kept_that_the_next_call_overwrites(name):
    options = OPTIONS[name]
    batcher = Batcher(optimized(**options), compiler=overwriting)
    first, second = (batcher.start(8) for _ in range(2))
    futures = []
    for step in range(2):
        for request, seed in ((first, 0), (second, 1)):
            given = Wish(seed).inputs()
            call = given["sample"] + step, torch.tensor([500.0]), given["text"]
            futures.append(request.submit(*call))
            batcher.run_round()
    with torch.no_grad():
        for future, seed in zip(futures[:2], (0, 1), strict=True):
            given = Wish(seed).inputs()
            expected = dit(3)(given["sample"], torch.tensor([500.0]), given["text"])
            torch.testing.assert_close(future.result(), expected, rtol=1e-5, atol=1e-5)
    batcher = Batcher(optimized(**options), max_batch=2, compiler=overwriting)
    found, _ = in_rounds(batcher, WISHES, delays=(0, 1, 2, 4))
    assert_close(found, [alone(wish, **options) for wish in WISHES])


class TwoAfterEach(fxcache.Policy):
    """Refreshes two steps after each refresh."""

    def scheduled(self, step: fxcache.Step) -> fxcache.Decision:
        return fxcache.Decision(step.index - step.last_refresh >= 2, "by this test")


def test_policies_see_the_last_refresh():
    batcher = Batcher(optimized())
    _, (request,) = in_rounds(batcher, [Wish(0, policy=TwoAfterEach())])
    assert request.refreshes == [0, 2, 4, 6]
