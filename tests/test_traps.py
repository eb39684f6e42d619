"""Tests former defects, and those of simpler designs. Each compares with an uncached twin."""

import copy
import threading
from collections.abc import Generator, Hashable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

import fxcache
from tests import tiny
from tests.engines import interrupted
from tests.loops import last_reason, refresh_graphs, refreshes, sample, steps


class Mini(nn.Module):
    """A U-Net of two levels that captures in a tenth of a second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)
        self.deep, self.text = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(6, 8)
        self.gain = 1.0

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        h = self.enter(sample)
        deep = self.deep(torch.tanh(h) + self.text(text)[:, :, None, None])
        joined = self.leave(torch.cat([deep, h], dim=1))
        return joined * (1 + timestep / 1000) * self.gain


def latent(seed: int = 0, batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, 6, 6, generator=torch.Generator().manual_seed(seed))


def words(seed: int = 0, batch: int = 1) -> Tensor:
    return torch.randn(batch, 6, generator=torch.Generator().manual_seed(100 + seed))


def twins(kind: type[nn.Module] = Mini, interval: int = 1) -> tuple[Any, Any]:
    """Return an optimised model and its plain twin."""
    plain = kind().eval()
    model = copy.deepcopy(plain)
    return fxcache.optimize(model, policy=fxcache.Uniform(interval=interval)), plain


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def same(model: Any, plain: Any, *args: Any) -> bool:
    return torch.equal(model(*args), plain(*args))


# Values that a capture must not freeze


def test_one_tensor_passed_as_two_inputs():
    class Two(Mini):
        def forward(self, sample, timestep, text, other):  # type: ignore[override]
            return super().forward(sample, timestep, text + 2 * other)

    model, plain = twins(Two)
    a, b = words(1), words(2)
    assert same(model, plain, latent(), torch.tensor(5), a, a)
    assert same(model, plain, latent(), torch.tensor(4), a, b)


def test_the_models_own_buffer_passed_as_an_input():
    class Null(Mini):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("null", words(9))

        def forward(self, sample, timestep, text):
            return super().forward(sample, timestep, text - self.null)

    model, plain = twins(Null)
    assert same(model, plain, latent(), torch.tensor(5), model.null)
    assert same(model, plain, latent(), torch.tensor(4), words(1))


def test_hooks_on_the_module_run_once():
    model, plain = twins()
    seen: list[int] = []

    def double(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(1)
        return output * 2

    for m in (model, plain):
        m.register_forward_pre_hook(lambda _, args: (args[0] + 1, *args[1:]))
        m.register_forward_hook(double)
    for _ in range(2):
        assert same(model, plain, latent(), torch.tensor(5), words())
    assert len(seen) == 4


def test_an_inner_autocast_or_grad_mode_block():
    class Inner(Mini):
        def forward(self, sample, timestep, text):
            h = self.enter(sample)
            with torch.autocast("cpu", enabled=False), torch.enable_grad():
                deep = self.deep(torch.tanh(h) + self.text(text)[:, :, None, None])
            return self.leave(torch.cat([deep.detach(), h], dim=1)) * timestep

    model, plain = twins(Inner)
    assert same(model, plain, latent(), torch.tensor(5), words())


def test_an_inner_autocast_block_is_priced():
    class Region(Mini):
        def forward(self, sample, timestep, text):
            h = self.enter(sample)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                deep = self.deep(h)
            return self.leave(torch.cat([deep.float(), h], dim=1)) * timestep

    model, plain = twins(Region, interval=9)
    (cut,) = fxcache.list_cuts(plain, latent(), torch.tensor(5), words())
    deep = 2 * 36 * 9 * 8 * 8
    assert cut.full_flops - cut.reuse_flops == deep
    assert same(model, plain, latent(), torch.tensor(5), words())


def test_numpy_numbers_are_timesteps():
    unet, inputs = fxcache.optimize(tiny.small_unet()), tiny.inputs()
    expected = tiny.small_unet()(timestep=7, **inputs).sample
    with fxcache.session(unet, key=1):
        assert torch.equal(unet(timestep=np.int64(7), **inputs).sample, expected)
        unet(timestep=np.float64(3), **inputs)


def test_missing_and_unknown_arguments_raise_type_error():
    model, _ = twins()
    with pytest.raises(TypeError, match="text"):
        model(latent(), 5)
    with pytest.raises(TypeError, match="colour"):
        model(latent(), 5, words(), colour=1)


def test_weights_from_inference_mode_are_named_as_the_cause():
    with torch.inference_mode():
        model = Mini().eval()
    fxcache.optimize(model)
    with pytest.raises(fxcache.CaptureError, match="inference mode"):
        model(latent(), 5, words())


# Changes between runs


def test_weights_untied_by_load_state_dict():
    class Tied(Mini):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Conv2d(8, 8, 3, padding=1)
            self.again.weight = self.deep.weight

        def forward(self, sample, timestep, text):
            h = self.enter(sample)
            return self.leave(torch.cat([self.again(self.deep(h)), h], dim=1)) * timestep

    model, plain = twins(Tied)
    assert same(model, plain, latent(), torch.tensor(5), words())
    state = {k: torch.randn_like(v) for k, v in plain.state_dict().items()}
    for m in (model, plain):
        m.load_state_dict(state, assign=True)
    assert same(model, plain, latent(), torch.tensor(900), words())


def test_a_setting_inside_a_processor_object():
    class Scaled(AttnProcessor):
        scale = 1.0

        def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
            return super().__call__(*args, **kwargs) * self.scale

    unet, plain = tiny.small_unet(), tiny.small_unet()
    for m in (unet, plain):
        m.set_attn_processor(Scaled())
    fxcache.optimize(unet, policy=fxcache.Uniform(interval=1))
    sample(unet, 2, **tiny.inputs())
    for m in (unet, plain):
        for processor in m.attn_processors.values():
            processor.scale = 0.3
    assert torch.equal(sample(unet, 2, **tiny.inputs()), sample(plain, 2, **tiny.inputs()))


def test_a_submodule_of_another_class():
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model, plain = twins()
    assert same(model, plain, latent(), torch.tensor(5), words())
    for m in (model, plain):
        m.deep.__class__ = Doubled
    assert same(model, plain, latent(), torch.tensor(900), words())


def test_a_capture_made_while_a_setting_was_another():
    model, plain = twins()
    with fxcache.session(model, key="request"):
        model(latent(), 900, words())
        model.gain = 3.0
        model(latent(batch=2), 800, words(batch=2))
        model.gain = 1.0
    assert same(model, plain, latent(batch=2), torch.arange(900, 0, -100)[0], words(batch=2))


def test_functional_call_at_the_start_of_a_run():
    model, plain = twins()
    assert same(model, plain, latent(), torch.tensor(5), words())
    other = {k: v * 0.5 for k, v in plain.state_dict().items()}
    args = (latent(), torch.tensor(900), words())
    expected = torch.func.functional_call(plain, other, args)
    assert torch.equal(torch.func.functional_call(model, other, args), expected)
    assert same(model, plain, latent(), torch.tensor(950), words())


# Callers that share a model


def test_conditioning_written_over_after_the_first_step():
    model, plain = twins(interval=50)
    text = words()
    with fxcache.session(model):
        model(latent(), 900, text)
        text.mul_(-3)
        assert same(model, plain, latent(), torch.tensor(800), text)


def test_conditioning_replaced_once_is_noticed_even_after_the_first_step():
    model, plain = twins(interval=50)
    timesteps = torch.arange(900, 0, -100)
    text = words(0)
    for i, t in enumerate(timesteps):
        if i in (1, 5):
            text = words(i)
        got = model(latent(i), t, text)
        if i in (1, 5):
            assert torch.equal(got, plain(latent(i), t, text))
    assert refreshes(model) == [[0, 1, 5]]


def test_a_session_entered_again_starts_a_new_run():
    model, plain = twins(interval=3)
    text, session = words(), fxcache.session(model)
    with session:
        model(latent(1), 500, text)
    with session:
        assert same(model, plain, latent(2), torch.tensor(400), text)


def test_nested_sessions_of_generators_are_refused():
    model, _ = twins(interval=3)
    text = words()

    def request(seed: int, key: Hashable) -> Generator[Tensor]:
        with fxcache.session(model, key=key):
            for timestep in (900, 800):
                yield model(latent(seed), timestep, text)

    first, second = request(1, None), request(2, "b")
    next(first)
    with pytest.raises(fxcache.StateError, match="open already"):
        next(second)
    first.close()


def test_sliced_guidance_halves_are_recognised():
    model, plain = twins(interval=3)
    both = torch.cat([words(1), words(2)])
    timesteps = torch.arange(900, 0, -100)
    for i, t in enumerate(timesteps):
        for half in (both[:1], both[1:]):
            got = model(latent(i), t, half)
            assert i % 3 or torch.equal(got, plain(latent(i), t, half))
    assert refreshes(model) == [[0, 3, 6]] * 2


def test_two_requests_that_share_timesteps_and_prompt():
    model, plain = twins(interval=5)
    timesteps, text = torch.arange(900, 0, -100), words()
    for t in timesteps[:3]:
        model(latent(1), t, text)
    assert same(model, plain, latent(2), timesteps[4], text)
    assert last_reason(model) == "a latent unlike any other's"


def test_numbers_that_rise_in_a_session_are_one_run():
    model, _ = twins(interval=2)
    text = words()
    with fxcache.session(model):
        for timestep in (0.1, 0.4, 0.7, 0.9):
            model(latent(), timestep, text)
        model(latent(), 0.1, text)
        assert last_reason(model) == "timesteps start over"
    assert steps(model) == [4, 1]
    assert refreshes(model) == [[0, 2], [0]]


def test_a_request_dropped_while_it_runs_writes_to_no_other_cache():
    model, plain = twins(interval=9)
    texts = [words(s) for s in range(9)]
    go, waiting = threading.Event(), threading.Event()
    slow = threading.local()

    def wait() -> None:
        if getattr(slow, "me", False):
            waiting.set()
            assert go.wait(20)

    model(latent(), 900, words(99))

    def request() -> None:
        slow.me = True
        with torch.no_grad():
            model(latent(50), 900, texts[0])

    with ExitStack() as waits:
        for graph in refresh_graphs(model):
            waits.enter_context(interrupted(model, graph, after=wait))
        thread = threading.Thread(target=request)
        thread.start()
        assert waiting.wait(20)
        for text in texts[1:]:
            model(latent(1), 900, text)
        go.set()
        thread.join()
    for text in texts[2:]:  # the deep value does not change with the timestep: reuse is exact
        assert torch.equal(model(latent(1), 899, text), plain(latent(1), 899, text))


def test_too_many_kinds_of_call_are_warned_of():
    model, _ = twins()
    texts = [words(batch=batch) for batch in range(1, 10)]
    for text in texts[:-1]:
        model(latent(batch=len(text)), 900, text)
    with pytest.warns(fxcache.FxcacheWarning, match="kinds of call"):
        model(latent(batch=9), 900, texts[-1])


# optimize and restore


def test_a_failed_restore_changes_nothing():
    model, plain = twins()
    inner = model.forward
    model.forward = lambda *args: inner(*args)
    with pytest.raises(fxcache.StateError, match="hides"):
        fxcache.restore(model)
    assert same(model, plain, latent(), torch.tensor(5), words())
    del model.forward
    fxcache.restore(model)
    assert type(model) is Mini


def test_restore_of_a_copy_made_inside_an_accelerate_hook():
    from accelerate.hooks import ModelHook, add_hook_to_module

    plain = Mini().eval()
    model = copy.deepcopy(plain)
    add_hook_to_module(model, ModelHook())
    fxcache.optimize(model)
    twin = copy.deepcopy(model)
    fxcache.restore(twin)
    assert same(twin, plain, latent(), torch.tensor(5), words())
    fxcache.restore(model)
    assert same(model, plain, latent(), torch.tensor(5), words())


def test_an_optimised_module_inside_another():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = fxcache.optimize(Mini().eval())

        def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
            return self.inner(sample, timestep, text)

    with pytest.raises(fxcache.StateError, match="contains an optimised module"):
        fxcache.optimize(Outer().eval())


@pytest.mark.parametrize(
    "call",
    [
        lambda m: fxcache.session(m, timesteps=5),  # type: ignore[arg-type]
        lambda m: fxcache.session(m, timesteps=torch.tensor(5)),
        lambda m: fxcache.session(m, key=(1, [2])),
        lambda _: fxcache.CaptureConfig(example_inputs=5),  # type: ignore[arg-type]
    ],
)
def test_options_of_a_wrong_type_are_refused(call):
    model, _ = twins()
    with pytest.raises(fxcache.ConfigError):
        call(model)


def test_a_dump_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FXCACHE_DUMP", str(tmp_path / "file" / "inside"))
    model, _ = twins()
    with pytest.raises(fxcache.ModelFileError, match="FXCACHE_DUMP"):
        model(latent(), 5, words())


@torch.no_grad()
def test_a_setting_changed_during_a_run_takes_effect_at_the_next_refresh():
    model, plain = twins(interval=3)
    text = words()
    for step, t in enumerate(torch.arange(900, 200, -100)):
        if step == 1:
            model.gain = plain.gain = 2.0
        noisy = latent(0) * (1 - step / 20)
        exact = torch.equal(model(noisy, t, text), plain(noisy, t, text))
        assert exact == (step in (0, 3, 6))
    assert refreshes(model) == [[0, 3, 6]]
