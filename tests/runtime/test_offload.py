"""Weights that no step reads wait elsewhere, and are back wherever they are read.

There is one device here, so what is away holds nothing but NaN: whoever reads it gives itself away.
"""

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
from fxcache.runtime import captures, offload
from tests import tiny
from tests.engines import optimized_engine
from tests.loops import guided_sample, refreshes, sample
from tests.plain import denoised, dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

ELSEWHERE = torch.device("meta")
ALWAYS = fxcache.Uniform(1)
TEACACHE = fxcache.TeaCache(1.0, coefficients=(1.0, 0.0))


class Host:
    """The stand-in for the CPU: it keeps the data of weights, and leaves NaN in their place."""

    def __init__(self) -> None:
        self.kept: dict[int, Tensor] = {}
        self.fetches = 0

    def move(self, weight: Tensor, device: torch.device) -> None:
        if device != ELSEWHERE:
            weight.data = self.kept.pop(id(weight))
        elif id(weight) not in self.kept:
            self.kept[id(weight)] = weight.data
            weight.data = torch.full_like(weight, torch.nan)

    def copy_to(self, weight: Tensor, device: torch.device) -> Tensor:
        assert device == torch.device("cpu")
        self.fetches += 1
        return self.kept[id(weight)].detach()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    simulated = Host()
    monkeypatch.setattr(offload, "HOST", ELSEWHERE)
    monkeypatch.setattr(offload, "move", simulated.move)
    monkeypatch.setattr(offload, "copy_to", simulated.copy_to)
    return simulated


def away(model: nn.Module) -> set[str]:
    """Return the names of the offloaded weights."""
    return {name for name, weight in model.named_parameters() if weight.isnan().all()}


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
