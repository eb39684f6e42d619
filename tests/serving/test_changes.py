"""Tests requests whose calls change, models that hold for certain calls only, and odd callers."""

import threading
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.codecs.identity import Identity
from fxcache.serving import Batcher
from tests.plain import dit
from tests.serving.requests import CAPTURE, Wish, optimized, overwriting

pytestmark = pytest.mark.usefixtures("shared_captures")
NEVER = fxcache.Explicit((0,))  # refreshes at the first step only
T = torch.tensor([500.0])


def submitted(request: Any, rows: int = 1, seed: int = 0, **changes: Any) -> Any:
    given = {**Wish(seed, rows=rows).inputs(), "timestep": T.expand(rows), **changes}
    return request.submit(given["sample"], given["timestep"], given["text"])


@torch.no_grad()
def plain(rows: int = 1, seed: int = 0) -> Tensor:
    given = Wish(seed, rows=rows).inputs()
    found: Tensor = dit(3)(given["sample"], T.expand(rows), given["text"])
    return found


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_other_rows_within_a_request_refresh_and_touch_no_other(before, after):
    """Guidance may end within a run: two rows become one."""
    batcher = Batcher(optimized(policy=NEVER))
    changing, steady = batcher.start(9), batcher.start(9)
    for rows in (before, after, after):
        futures = submitted(changing, rows), submitted(steady, seed=1)
        batcher.run_round()
        torch.testing.assert_close(futures[0].result(), plain(rows), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(futures[1].result(), plain(seed=1), rtol=1e-5, atol=1e-5)
    assert (changing.refreshes, steady.refreshes) == ([0, 1], [0])


class Masked(nn.Module):
    """Reads a mask that has rows while it is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.dit = dit(2)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        if int(mask.sum()) == mask.numel():
            return self.dit(sample, timestep, text)
        return self.dit(sample, timestep, text * mask[..., None])


def test_graphs_for_certain_values_of_rows_are_refused():
    rows = {**(CAPTURE.dynamic or {}), "mask": (0,)}
    capture = fxcache.CaptureConfig(dynamic=rows)
    batcher = Batcher(fxcache.optimize(Masked().eval(), fxcache.Uniform(3), capture=capture))
    given = Wish(0, rows=2).inputs()
    future = batcher.start(2).submit(given["sample"], T.expand(2), given["text"], torch.ones(2, 5))
    batcher.run_round()
    with pytest.raises(fxcache.FxcacheError):
        future.result()


class Small(nn.Module):
    """Computes large batches in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.dit = dit(2)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        found: Tensor = self.dit(sample, timestep, text)
        return -found if sample.shape[0] > 4 else found


@torch.no_grad()
def test_a_joined_batch_must_be_served_by_the_graph_too():
    batcher = Batcher(fxcache.optimize(Small().eval(), fxcache.Uniform(3), capture=CAPTURE))
    futures = [submitted(batcher.start(2), rows=2, seed=seed) for seed in range(3)]
    batcher.run_round()
    assert batcher.statistics.calls == 3, "the graph holds for at most four rows"
    for seed, future in enumerate(futures):
        given = Wish(seed, rows=2).inputs()
        expected = dit(2)(given["sample"], T.expand(2), given["text"])
        torch.testing.assert_close(future.result(), expected, rtol=1e-5, atol=1e-5)


def test_autocast_and_unnamed_numbers_are_refused():
    batcher = Batcher(optimized())
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(fxcache.ConfigError, match="autocast is on"),
    ):
        submitted(batcher.start(2))
    capture = fxcache.CaptureConfig(dynamic={"sample": (0,), "text": (0,)})
    with pytest.raises(fxcache.ConfigError, match="timestep is a number"):
        submitted(Batcher(optimized(capture=capture)).start(2), timestep=500.0)


def test_numbers_are_timesteps_of_full_precision():
    batcher, given = Batcher(optimized()), Wish(0).inputs()
    request = batcher.start(2)
    torch.set_default_dtype(torch.float16)
    try:
        future = request.submit(given["sample"], 501.3, given["text"])
    finally:
        torch.set_default_dtype(torch.float32)
    batcher.run_round()
    with torch.no_grad():
        expected = dit(3)(given["sample"], torch.tensor([501.3]), given["text"])
    torch.testing.assert_close(future.result(), expected, rtol=1e-6, atol=1e-6)


def test_steps_that_are_tried_alone_keep_their_own_values():
    """A joined call fails, and each step is run alone, by a graph that overwrites its results."""

    def alone_only(module: nn.Module) -> Any:
        run = overwriting(module)

        def call(*inputs: Tensor) -> Any:
            if len(inputs[0]) > 2:
                raise MemoryError
            return run(*inputs)

        return call

    batcher = Batcher(optimized(policy=NEVER), compiler=alone_only)
    requests = [batcher.start(3) for _ in range(3)]
    for _ in range(2):
        futures = [submitted(request, seed=seed) for seed, request in enumerate(requests)]
        batcher.run_round()
        for seed, future in enumerate(futures):
            torch.testing.assert_close(future.result(), plain(seed=seed), rtol=1e-5, atol=1e-5)
    assert [request.refreshes for request in requests] == [[0]] * 3


def test_after_an_error_while_values_are_stored_the_step_refreshes(monkeypatch):
    batcher = Batcher(optimized(policy=fxcache.Explicit((0, 1))))
    request = batcher.start(4)
    submitted(request)
    batcher.run_round()
    write = Identity.write

    def failing(self: Identity, entries: Any, values: Any) -> None:
        write(self, entries, [torch.full_like(value, 7.0) for value in values])
        raise MemoryError

    monkeypatch.setattr(Identity, "write", failing)
    future = submitted(request)
    batcher.run_round()
    with pytest.raises(MemoryError):
        future.result()
    monkeypatch.undo()
    request.trajectory.policy = NEVER  # would reuse what was stored before the error
    for _ in range(2):
        future = submitted(request)
        batcher.run_round()
        torch.testing.assert_close(future.result(), plain(), rtol=1e-5, atol=1e-5)
    assert request.refreshes == [0, 1]


class Raises(fxcache.Policy):
    """Fails with an error that is not fxcache's."""

    def scheduled(self, step: fxcache.Step) -> fxcache.Decision:
        raise ZeroDivisionError


def test_an_error_of_a_policy_does_not_stop_the_thread():
    with Batcher(optimized(), align=2, linger=0.01) as batcher:
        broken, sound = batcher.start(3, Raises()), batcher.start(3)
        submitted(broken).result(timeout=60)
        pair = submitted(broken), submitted(sound)
        with pytest.raises(ZeroDivisionError):
            pair[0].result(timeout=60)
        torch.testing.assert_close(pair[1].result(timeout=60), plain(), rtol=1e-5, atol=1e-5)


def test_an_error_between_the_calls_reaches_every_caller(monkeypatch):
    batcher = Batcher(optimized())
    futures = [submitted(batcher.start(2), seed=seed) for seed in range(2)]
    monkeypatch.setattr("fxcache.serving.batcher.kinds", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batcher.run_round()
    for future in futures:
        with pytest.raises(ZeroDivisionError):
            future.result(timeout=5)


def test_closing_wakes_those_who_wait_for_several_steps():
    batcher = Batcher(optimized(), linger=60)
    with batcher:
        request, _ = batcher.start(2), batcher.start(2)
        future = submitted(request)
    done, _ = wait([future], timeout=5, return_when=FIRST_COMPLETED)
    assert done == {future}
    with pytest.raises(fxcache.StateError, match="closed"):
        batcher.__enter__()


def test_threads_without_a_with_block_take_turns():
    batcher = Batcher(optimized())
    running, most = 0, 0
    run = batcher._executor.run

    def counted(steps: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        run(steps)
        running -= 1

    batcher._executor.run = counted  # type: ignore[method-assign]
    found: dict[int, list[Tensor]] = {}

    def serve(seed: int) -> None:
        found[seed] = Wish(seed, steps=4).latents(batcher.start(4))

    threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert most == 1
    assert sorted(found) == [0, 1, 2]
