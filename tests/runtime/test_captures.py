"""Tests captures in one thread while other threads step, change the model, or restore it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.engines import num_captures, optimized_engine

WAIT = 120  # seconds; on a loaded machine a capture is slow


class Gate:
    """Blocks a trace until it is opened, and lets it fail on request."""

    def __init__(self) -> None:
        self.entered, self.opened, self.error = threading.Event(), threading.Event(), ""
        self.batch = 2  # of the calls that are held back
        self.traces, self.interrupted = 0, False

    def pass_through(self, batch: int) -> None:
        if torch.compiler.is_exporting() and batch == self.batch:
            self.traces += 1
            self.entered.set()
            assert self.opened.wait(WAIT)
            if self.interrupted:
                self.interrupted = False
                raise KeyboardInterrupt
            if self.error:
                raise ValueError(self.error)


class Denoiser(nn.Module):
    gates: dict[str, Gate]

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.deep, self.middle, self.last = (nn.Linear(4, 4) for _ in range(3))
        self.gain = 1.0

    def forward(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        self.gates["gate"].pass_through(x.shape[0])
        emb = self.gain * timestep / 1000 + text
        return self.last(x + self.middle(torch.tanh(self.deep(x) + emb)))


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    Denoiser.gates = {"gate": made}
    yield made
    made.opened.set()


def twins() -> tuple[Any, Any]:
    model = fxcache.optimize(Denoiser().eval(), policy=fxcache.Uniform(1), cut="deep")
    return model, Denoiser().eval()


class Request:
    """One run of calls at one batch size."""

    def __init__(self, batch: int, steps: int = 4):
        self.x, self.text = torch.randn(batch, 3, 4), torch.randn(batch, 1, 4)
        self.timesteps = torch.linspace(900, 100, steps)

    @torch.no_grad()
    def results(self, model: Any) -> list[Tensor]:
        return [model(self.x, t, self.text) for t in self.timesteps]

    def agrees(self, model: Any, plain: Any) -> bool:
        pairs = zip(self.results(model), self.results(plain), strict=True)
        return all(torch.equal(got, expected) for got, expected in pairs)


class Caller(threading.Thread):
    """Makes the calls of a request, and keeps their results."""

    def __init__(self, model: Any, request: Request):
        super().__init__()
        self.model, self.request = model, request
        self.found: list[Tensor] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.found = self.request.results(self.model)
        except BaseException as error:
            self.error = error


@contextmanager
def capturing(model: Any, gate: Gate, count: int = 1) -> Iterator[list[Caller]]:
    """Block other threads inside a capture during the block. They end after it."""
    callers = [Caller(model, Request(gate.batch)) for _ in range(count)]
    for caller in callers:
        caller.start()
    assert gate.entered.wait(WAIT)
    try:
        yield callers
    finally:
        gate.opened.set()
        for caller in callers:
            caller.join(WAIT)
            assert not caller.is_alive()


def within(seconds: float, action: Callable[[], object]) -> None:
    """Fail instead of hanging if ``action`` waits for code after it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for the capture"
    if failures:
        raise failures[0]


def test_other_shapes_step_during_a_capture(gate):
    model, plain = twins()
    ready = Request(1)
    assert ready.agrees(model, plain)

    def step() -> None:
        for _ in range(5):  # runs that start meanwhile, of old and new requests
            assert ready.agrees(model, plain)
            assert Request(1, steps=20).agrees(model, plain)

    with capturing(model, gate) as (caller,):
        within(WAIT, step)
        assert num_captures(model) == 1
    assert caller.error is None
    expected = caller.request.results(plain)
    assert all(map(torch.equal, caller.found, expected))
    assert num_captures(model) == 2


def test_callers_of_one_shape_wait_for_one_capture(gate):
    model, plain = twins()
    with capturing(model, gate, count=3) as callers:
        pass
    assert [caller.error for caller in callers] == [None] * 3
    for caller in callers:
        assert all(map(torch.equal, caller.found, caller.request.results(plain)))
    assert gate.traces == num_captures(model) == 1


def test_waiting_callers_get_the_error(gate):
    model, plain = twins()
    assert Request(1).agrees(model, plain)
    gate.error = "this line fails"
    with capturing(model, gate, count=3) as callers:
        pass
    for caller in callers:
        assert isinstance(caller.error, fxcache.CaptureError)
        assert "this line fails" in caller.error.what
    gate.error = ""
    assert Request(2).agrees(model, plain)  # and nothing is in the way of another attempt
    assert Request(1).agrees(model, plain)


def test_waiting_callers_try_again_after_an_interrupt(gate):
    model, plain = twins()
    gate.interrupted = True
    with capturing(model, gate, count=3) as callers:
        pass
    interrupted = [caller for caller in callers if caller.error is not None]
    assert [type(caller.error) for caller in interrupted] == [KeyboardInterrupt]
    for caller in set(callers) - set(interrupted):
        assert all(map(torch.equal, caller.found, caller.request.results(plain)))


def test_weights_written_during_a_capture_count_for_running_runs(gate):
    model, plain = twins()
    request, weight = Request(1), model.deep.weight
    assert request.agrees(model, plain)
    engine = optimized_engine(model)
    before = engine.graphs.changes.generation
    with capturing(model, gate), torch.no_grad():
        weight.mul_(2)
    assert engine.graphs.changes.generation > before


def test_restore_during_a_capture(gate):
    model, plain = twins()
    ready = Request(1)
    assert ready.agrees(model, plain)
    with capturing(model, gate) as (caller,):
        within(WAIT, lambda: fxcache.restore(model))
        assert type(model) is Denoiser
        assert "_fxcache" not in vars(model)
    assert isinstance(caller.error, None | AttributeError)
    assert ready.agrees(model, plain)
    again = fxcache.optimize(model, policy=fxcache.Uniform(1), cut="deep")
    assert Request(2).agrees(again, plain)


def test_weights_written_during_a_capture(gate):
    model, plain = twins()
    request = Request(1)
    assert request.agrees(model, plain)
    engine = optimized_engine(model)
    weights = [m.deep.weight for m in (model, plain)]  # as an optimizer holds them
    with capturing(model, gate) as (caller,):
        for weight in weights:
            with torch.no_grad():
                weight.mul_(2)
        before = engine.graphs.changes.generation
        within(WAIT, lambda: request.agrees(model, plain) or pytest.fail("stale"))
        assert engine.graphs.changes.generation == before + 1
    assert all(map(torch.equal, caller.found, caller.request.results(plain)))
    assert request.agrees(model, plain)


def test_weights_replaced_just_before_a_capture_are_read_by_runs_that_start_during_it(gate):
    model, plain = twins()
    request = Request(1)
    assert request.agrees(model, plain)
    for m in (model, plain):
        m.deep.weight = nn.Parameter(2 * m.deep.weight)
    with capturing(model, gate):
        within(WAIT, lambda: request.agrees(model, plain) or pytest.fail("stale"))


def test_a_setting_changed_during_a_capture(gate):
    model, plain = twins()
    request = Request(1)
    assert request.agrees(model, plain)
    with capturing(model, gate) as (caller,):
        model.gain = plain.gain = 3.0
    assert gate.traces == 2  # the first trace had the old setting
    assert all(map(torch.equal, caller.found, caller.request.results(plain)))
    assert num_captures(model) == 1
    assert request.agrees(model, plain)


def test_a_setting_changed_between_captures_drops_what_was_captured_before():
    Denoiser.gates = {"gate": Gate()}
    Denoiser.gates["gate"].batch = 0
    model, plain = twins()
    assert Request(1).agrees(model, plain)
    for m in (model, plain):
        m.middle = nn.Linear(4, 4)
        nn.init.constant_(m.middle.weight, 0.5)
        nn.init.zeros_(m.middle.bias)
    assert Request(2).agrees(model, plain)
    assert num_captures(model) == 1
    assert Request(1).agrees(model, plain)
