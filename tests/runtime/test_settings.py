"""Tests a second call of ``optimize``: settings change, captures stay, values are dropped."""

import threading
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.capture import capture as capturing
from fxcache.runtime.module import engine_of
from tests.engines import optimized_engine
from tests.loops import refreshes
from tests.plain import dit, dit_inputs


class Mini(nn.Module):
    """A U-Net of two levels that captures in a tenth of a second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)
        self.deep, self.text = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(6, 8)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        h = self.enter(sample)
        deep = self.deep(torch.tanh(h) + self.text(text)[:, :, None, None])
        return self.leave(torch.cat([deep, h], dim=1)) * (1 + timestep / 1000)


SAMPLE = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
TEXT = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(model: nn.Module, steps: int = 6) -> Tensor:
    latent = SAMPLE
    for t in torch.linspace(900, 100, steps):
        latent = latent - 0.1 * model(latent, t, TEXT)
    return latent


@pytest.fixture
def exports(monkeypatch) -> list[Any]:
    """Return the number of calls of torch.export so far."""
    seen: list[Any] = []
    export = vars(capturing)["export"]

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(args)
        return export(*args, **kwargs)

    monkeypatch.setattr(capturing, "export", counted)
    return seen


def test_a_changed_interval_needs_no_capture(exports):
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(3))
    run(model)
    variants = list(optimized_engine(model).captures.values())
    kind = type(model)
    assert fxcache.optimize(model, fxcache.Uniform(5)) is model
    run(model)
    assert refreshes(model) == [[0, 5]]
    assert list(optimized_engine(model).captures.values()) == variants
    assert len(exports) == 1
    assert type(model) is kind
    assert fxcache.report(model).policy["interval"] == 5


def test_a_notebook_cell_can_run_twice(exports):
    model = Mini().eval()
    expected = run(model)
    drawn = [run(fxcache.optimize(model, fxcache.Uniform(1))) for _ in range(2)]
    assert all(torch.equal(d, expected) for d in drawn)
    assert len(exports) == 1
    fxcache.restore(model)
    assert type(model) is Mini


def test_compiling_a_captured_model_needs_no_second_trace(exports, clean_dynamo):
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(2))
    expected = run(model)
    compiled: Any = torch.compile(model, backend="eager")
    assert torch.equal(run(compiled), expected)
    assert len(exports) == 1


def test_a_set_among_the_settings_needs_no_second_trace(exports):
    """As the names of a LoRA's target modules: its order must not change during a trace."""
    chosen = set(range(100))
    chosen.difference_update(set(range(100)) - {1, 8})
    assert list(chosen) == [1, 8], "a set that never was larger has another order"
    model: Any = Mini().eval()
    model.chosen = chosen
    run(fxcache.optimize(model))
    assert len(exports) == 1
    assert list(chosen) == [1, 8]


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"cut": "deep"}, {"cut": 0}),
        ({}, {"cache": fxcache.CacheConfig(dtype=torch.int8)}),
        ({"cache": fxcache.CacheConfig(dtype=torch.int8)}, {}),
        ({}, {"cache": fxcache.CacheConfig(partial_evaluation=True)}),
        ({}, {"policy": fxcache.TaylorSeer(3)}),
        ({"policy": fxcache.TaylorSeer(3)}, {"policy": fxcache.Uniform(3)}),
        ({}, {"hoist": "once"}),
        ({"hoist": "table"}, {"cut": "deep"}),
    ],
)
def test_new_settings_equal_those_of_a_fresh_model(exports, first, second):
    expected = run(fxcache.optimize(Mini().eval(), **second))
    exports.clear()
    model = fxcache.optimize(Mini().eval(), **first)
    run(model)
    fxcache.optimize(model, **second)
    assert torch.equal(run(model), expected)
    assert len(exports) == 1, "the program is partitioned anew, not captured"
    once = fxcache.report(model).to_dict()
    assert once["captures"][0]["cut"]["name"]


def test_another_observed_signal(exports):
    model = fxcache.optimize(dit(), fxcache.Uniform(2))
    inputs = dit_inputs()

    @torch.no_grad()
    def sampled(model: nn.Module) -> Tensor:
        return torch.stack([model(timestep=t, **inputs) for t in torch.linspace(900, 100, 4)])

    sampled(model)
    fxcache.optimize(model, fxcache.FirstBlock(0.3))
    expected = sampled(fxcache.optimize(dit(), fxcache.FirstBlock(0.3)))
    exports.clear()
    assert torch.equal(sampled(model), expected)
    assert not exports


def test_weights_replaced_since_the_capture_are_read(exports):
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(1))
    run(model)
    with torch.no_grad():
        model.deep.weight = nn.Parameter(model.deep.weight * 2)
    run(model)
    fxcache.optimize(model, fxcache.Uniform(1), cut="deep")
    found = run(model)
    fxcache.restore(model)
    assert torch.equal(found, run(model))


def test_other_roles_are_captured_anew(exports):
    model = fxcache.optimize(Mini().eval())
    run(model)
    sizes = fxcache.CaptureConfig(dynamic={"sample": (2, 3)})
    fxcache.optimize(model, capture=sizes)
    run(model)
    assert len(exports) == 2
    fxcache.optimize(model, capture=sizes)
    run(model)
    assert len(exports) == 2


@torch.no_grad()
def test_the_next_call_refreshes():
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(9))
    timesteps = torch.linspace(900, 100, 8)
    for t in timesteps[:3]:
        model(SAMPLE, t, TEXT)
    fxcache.optimize(model, fxcache.Uniform(4))
    for t in timesteps[3:]:
        model(SAMPLE, t, TEXT)
    assert refreshes(model) == [[0, 4]]


@torch.no_grad()
@pytest.mark.sweep(1)
@pytest.mark.parametrize("key", [None, "a request"])
def test_the_next_call_refreshes_in_a_session_too(key):
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(9))
    with fxcache.session(model, key=key):
        model(SAMPLE, 900.0, TEXT)
        model(SAMPLE, 800.0, TEXT)
        fxcache.optimize(model, fxcache.Uniform(9))
        model(SAMPLE, 700.0, TEXT)
    assert refreshes(model) == [[0]]


@torch.no_grad()
def test_a_session_does_not_reuse_values_of_old_settings():
    plain, found = Mini().eval(), []
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(9))
    cached, changed = threading.Event(), threading.Event()

    def sample() -> None:
        with torch.no_grad(), fxcache.session(model):
            model(SAMPLE, 900.0, TEXT)
            cached.set()
            changed.wait()
            found.append(model(2 * SAMPLE, 800.0, TEXT))

    thread = threading.Thread(target=sample)
    thread.start()
    cached.wait()
    fxcache.optimize(model, fxcache.Uniform(9))
    changed.set()
    thread.join()
    assert torch.equal(found[0], plain(2 * SAMPLE, 800.0, TEXT))


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": 5},
        {"cut": "no such module"},
        {"cut": 17},
        {"hoist": None, "cache": fxcache.CacheConfig(offload=True)},
        {"capture": fxcache.CaptureConfig(latent="no such input")},
        {"capture": fxcache.CaptureConfig(example_inputs={"sample": "noise"})},
        {"plan": "no such file"},
    ],
)
def test_an_error_leaves_the_model_unchanged(wrong):
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(3))
    expected, engine = run(model), engine_of(model)
    with pytest.raises(fxcache.FxcacheError):
        fxcache.optimize(model, **wrong)
    assert engine_of(model) is engine
    assert torch.equal(run(model), expected)
    assert refreshes(model) == [[0, 3], [0, 3]]


def test_the_smaller_bound_drops_the_oldest_captures(exports):
    model = fxcache.optimize(Mini().eval())
    with torch.no_grad():
        for batch in (1, 2, 3):
            model(SAMPLE.expand(batch, -1, -1, -1), torch.tensor(9.0 - batch), TEXT)
    fxcache.optimize(model, capture=fxcache.CaptureConfig(max_captures=2))
    assert [c.inputs[:9] for c in fxcache.report(model).captures] == ["sample[2,", "sample[3,"]


def test_example_inputs_capture_immediately(exports):
    model = fxcache.optimize(Mini().eval())
    example = (SAMPLE, torch.tensor(900.0), TEXT)
    fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=example))
    assert len(exports) == 1
    run(model)
    assert len(exports) == 1


def test_settings_change_while_other_threads_call():
    """Each call runs completely under one of the settings, and its result is exact."""
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(1))
    expected, wrong, stop = run(model), [], threading.Event()

    def sample() -> None:
        while not stop.is_set():
            if not torch.equal(run(model), expected):
                wrong.append(1)

    threads = [threading.Thread(target=sample) for _ in range(2)]
    for thread in threads:
        thread.start()
    for cut in ("deep", 0, "auto") * 4:
        fxcache.optimize(model, fxcache.Uniform(1), cut=cut)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_clear_drops_values_and_keeps_captures(exports):
    model = fxcache.optimize(Mini().eval(), fxcache.Uniform(9))
    timesteps = torch.linspace(900, 100, 8)
    with torch.no_grad():
        for t in timesteps[:3]:
            model(SAMPLE, t, TEXT)
        assert fxcache.report(model).cached_bytes
        fxcache.clear(model)
        assert not fxcache.report(model).cached_bytes
        model(SAMPLE, timesteps[3], TEXT)
    assert refreshes(model) == [[0], [0]]
    assert len(exports) == 1


@torch.no_grad()
@pytest.mark.sweep(1)
@pytest.mark.parametrize("change", [fxcache.restore, fxcache.optimize])
def test_a_waiting_call_runs_under_the_new_settings(change):
    """The call runs with the settings at the time of its turn."""
    plain, model = Mini().eval(), fxcache.optimize(Mini().eval(), fxcache.Uniform(9))
    engine: Any = engine_of(model)
    model(SAMPLE, 900.0, TEXT)

    class Turn:
        def __enter__(self) -> None:
            engine.call_lock = nullcontext()
            change(model)

        def __exit__(self, *error: object) -> None:
            pass

    engine.call_lock = Turn()
    assert torch.equal(model(2 * SAMPLE, 800.0, TEXT), plain(2 * SAMPLE, 800.0, TEXT))
    assert engine_of(model) is not engine
