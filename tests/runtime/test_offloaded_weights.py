"""Tests which weights are offloaded, where they return to, and that calls take turns."""

import copy
import threading
from contextlib import nullcontext
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fxcache
from fxcache.runtime import offload
from tests.engines import optimized_engine
from tests.plain import denoised, dit, dit_inputs
from tests.runtime.offloaded import ALWAYS, ELSEWHERE, away


def test_restore_returns_offloaded_weights(host):
    model = fxcache.optimize(dit(), hoist="table", cache=fxcache.CacheConfig(offload=True))
    denoised(model)
    assert away(model)
    copied = copy.deepcopy(model)
    assert not away(model)
    assert not away(copied)
    denoised(model)
    assert away(model)
    assert fxcache.list_cuts(model, timestep=torch.tensor(1.0), **dit_inputs())
    assert not away(model)
    denoised(model)
    assert away(model)
    fxcache.restore(model)
    assert not away(model)
    assert torch.equal(denoised(model), denoised(dit()))


def test_the_first_parameter_and_shared_memory_stay(host):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.text, self.deep, self.last, self.other = (nn.Linear(4, 4) for _ in range(4))
            self.other.weight = nn.Parameter(self.last.weight.data)
            self.more = nn.Linear(4, 4)
            self.more.bias = nn.Parameter(self.text.bias.data)

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            return self.last(self.deep(x) + x * t) + self.other(self.text(self.more(text)))

    model = fxcache.optimize(
        Tied().eval(), cut="deep", hoist="once", cache=fxcache.CacheConfig(offload=True)
    )
    x, text = torch.ones(3, 4), torch.ones(3, 4)
    with torch.no_grad():
        for t in torch.linspace(900, 100, 3):
            model(x, t, text)
    assert away(model) == {"more.weight", "other.bias"}


@pytest.mark.parametrize("moved", [False, True])
def test_weights_return_to_the_modules_device(monkeypatch, moved):
    went: list[torch.device] = []
    monkeypatch.setattr(offload, "HOST", ELSEWHERE)
    monkeypatch.setattr(offload, "move", lambda _, device: went.append(device))
    held, module = offload.Offload(), nn.Linear(2, 2)
    held.belongs_to(module)
    held.move_to_cpu(module.parameters(), [])
    if moved:
        module.weight = nn.Parameter(torch.ones(1, device=ELSEWHERE))
    here = ELSEWHERE if moved else torch.device("cpu")
    assert held.homes == {id(module.bias): here}
    held.bring_back()
    assert went == [ELSEWHERE, here]
    assert not held.homes


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move weights to separate memory, as to another device."""
    monkeypatch.setattr(offload, "HOST", ELSEWHERE)
    monkeypatch.setattr(offload, "transfer", lambda values, _: values.clone())


@pytest.mark.usefixtures("copies")
def test_weights_stay_normal_tensors_in_inference_mode():
    model, plain = (
        fxcache.optimize(
            dit(), policy=ALWAYS, hoist="once", cache=fxcache.CacheConfig(offload=True)
        ),
        dit(),
    )
    inputs, smaller = dit_inputs(), dit_inputs(batch=1)
    versions = [weight._version for weight in model.parameters()]
    with torch.inference_mode():
        for t in torch.linspace(900, 100, 3):
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
        assert fxcache.report(model).offloaded_bytes > 0
        model(timestep=torch.tensor(50.0), **smaller)  # is captured
        fxcache.restore(model)
    assert not any(weight.is_inference() for weight in model.parameters())
    assert [weight._version for weight in model.parameters()] == versions


@pytest.mark.usefixtures("copies")
def test_a_weight_tied_to_an_unread_weight_stays():
    model = dit()
    model.alias = nn.Parameter(model.layers[0].key_value.weight.data)
    fxcache.optimize(model, policy=ALWAYS, hoist="once", cache=fxcache.CacheConfig(offload=True))
    denoised(model)
    assert fxcache.report(model).offloaded_bytes > 0
    assert model.alias.data_ptr() == model.layers[0].key_value.weight.data_ptr()


def test_buffers_stay(host):
    """Another dtype or device replaces buffers."""

    class Mixed(nn.Module):
        mix: Tensor

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))
            self.register_buffer("mix", torch.randn(4, 4))

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            x = self.first(x)
            found: Tensor = self.last(self.deep(x) + x * t) + text @ self.mix
            return found

    model = fxcache.optimize(
        Mixed().eval(), cut="deep", hoist="once", cache=fxcache.CacheConfig(offload=True)
    )
    text = torch.ones(3, 4)
    with torch.no_grad():
        for t in torch.linspace(900, 100, 3):
            model(torch.ones(3, 4), t, text)
    assert not model.mix.isnan().any()


def test_calls_take_turns(host):
    """A run that begins in one thread would offload weights that another thread's step reads."""
    model, plain = (
        fxcache.optimize(
            dit(), policy=ALWAYS, hoist="once", cache=fxcache.CacheConfig(offload=True)
        ),
        dit(),
    )
    tracked = dit_inputs(seed=1)
    with torch.inference_mode():
        untracked = dit_inputs(seed=2)
    inside, goes_on, begun = threading.Event(), threading.Event(), threading.Event()

    class Waiting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if func is torch.ops.aten.addmm.default and not inside.is_set():
                inside.set()
                goes_on.wait(20)
            return func(*args, **(kwargs or {}))

    found: dict[str, Tensor] = {}
    schedule = torch.linspace(900, 100, 4)

    @torch.no_grad()
    def steps(name: str, mode: Any, timesteps: Tensor, inputs: dict[str, Tensor]) -> None:
        if name == "tracked":
            begun.set()
        with mode:
            found[name] = model(timestep=timesteps[0], **inputs)

    with pytest.warns(match="inference mode"):  # noqa: PT031
        for inputs in (tracked, untracked):
            steps("", nullcontext(), schedule.clone(), inputs)
        slow = Thread(target=steps, args=("untracked", Waiting(), schedule.clone(), untracked))
        slow.start()
        assert inside.wait(20)
        other = Thread(target=steps, args=("tracked", nullcontext(), schedule.clone(), tracked))
        other.start()
        assert begun.wait(20)
        other.join(0.5)
        goes_on.set()
        slow.join()
        other.join()
    for name, inputs in (("tracked", tracked), ("untracked", untracked)):
        with torch.no_grad():
            expected = plain(timestep=schedule[0], **inputs)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("act", [fxcache.restore, copy.copy])
def test_weights_return_after_the_running_call(act):
    model = fxcache.optimize(
        dit(), policy=ALWAYS, hoist="once", cache=fxcache.CacheConfig(offload=True)
    )
    denoised(model)
    engine = optimized_engine(model)
    with engine.call_lock:
        other = Thread(target=act, args=(model,))
        other.start()
        other.join(0.3)
        assert other.is_alive()
        assert away(model)
    other.join()
    assert not away(model)


def test_offloading_without_hoisting_is_refused():
    with pytest.raises(fxcache.ConfigError, match="hoist"):
        fxcache.optimize(dit(), hoist=None, cache=fxcache.CacheConfig(offload=True))


def test_on_the_cpu_nothing_moves():
    model = fxcache.optimize(dit(), hoist="once", cache=fxcache.CacheConfig(offload=True))
    addresses = [weight.data_ptr() for weight in model.parameters()]
    denoised(model)
    assert [weight.data_ptr() for weight in model.parameters()] == addresses
    assert fxcache.report(model).offloaded_bytes == 0
