"""Tests hoisting: equal results from values that are computed once a run or once a schedule."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import HeunDiscreteScheduler
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from fxcache.analysis.hoisting import HoistLevel
from fxcache.rewrite.variants import Variants
from fxcache.runtime.features.timesteps import MAX_AGE, MAX_ROWS, TimestepHistory
from fxcache.runtime.trajectory.position import Number, Place
from tests import tiny
from tests.engines import optimized_engine, variants_of
from tests.loops import guided_sample, refreshes, sample
from tests.plain import denoised, dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")

ALWAYS = fxcache.Uniform(1)
POLICIES = [
    ALWAYS,
    fxcache.Uniform(3),
    fxcache.TaylorSeer(3, order=1, first=1),
    fxcache.TeaCache(1.0, coefficients=(1.0, 0.0)),
    fxcache.FirstBlock(0.3),
    fxcache.FasterCache(2),
]


def both(
    make: Callable[[], nn.Module], run: Callable[[nn.Module], Any], **options: Any
) -> tuple[Any, Any, nn.Module]:
    """Return the results without and with hoisting, and the model that hoists."""
    hoist = options.pop("hoist", "once")
    plainly = run(fxcache.optimize(make(), **options))
    model = fxcache.optimize(make(), **options, hoist=hoist)
    return plainly, run(model), model


def captured(model: nn.Module) -> list[Variants]:
    engine = optimized_engine(model)
    return list(engine.captures.values())


def levels(model: nn.Module) -> set[HoistLevel]:
    """Return the hoist levels of the variants that ran."""
    made = [key.hoisted for variants in captured(model) for key in variants.made]
    return {level for level in made if level} or {HoistLevel.NOTHING}


def spent(model: nn.Module) -> int:
    """Return the recorded FLOPs of all steps."""
    engine = optimized_engine(model)
    return sum(step.flops for run in engine.runs for step in run.steps)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.to_dict()["policy"])
def test_hoisting_once_is_bit_for_bit_equal(policy):
    if policy.observes:
        expected, found, model = both(dit, denoised, policy=policy)
    else:
        expected, found, model = both(
            tiny.small_unet, lambda m: sample(m, 7, **tiny.inputs()), policy=policy
        )
    assert torch.equal(found, expected)
    assert levels(model) == {HoistLevel.PER_RUN}
    if isinstance(policy, fxcache.FirstBlock):
        read = captured(model)[0].prefix(HoistLevel.PER_RUN).module.meta["weight_names"].values()
        assert not [name for name in read if "key_value" in name]
    if policy == ALWAYS:
        assert torch.equal(found, sample(tiny.small_unet(), 7, **tiny.inputs()))


@pytest.mark.parametrize("make", [tiny.xl_unet, tiny.unet])
def test_text_keys_and_values_are_computed_once(make):
    def measured(model: nn.Module) -> int:
        counter = FlopCounterMode(display=False)
        with counter:
            sample(model, 5, **inputs)
        return counter.get_total_flops()

    inputs = tiny.inputs()
    if make is tiny.xl_unet:
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].repeat(1, 1, 2)
        added = {"text_embeds": torch.ones(2, tiny.TEXT_WIDTH), "time_ids": torch.ones(2, 6)}
        inputs["added_cond_kwargs"] = added
    example = {**inputs, "timestep": torch.tensor(1)}
    plain = fxcache.optimize(
        make(), policy=ALWAYS, hoist=None, capture=fxcache.CaptureConfig(example_inputs=example)
    )
    hoisted = fxcache.optimize(
        make(), policy=ALWAYS, hoist="once", capture=fxcache.CaptureConfig(example_inputs=example)
    )
    saved = measured(plain) - measured(hoisted)
    variants = variants_of(hoisted)
    once = [n.meta["nn_module_stack"] for n in variants.hoisted.per_run]
    paths = [next(reversed(list(stack.values())))[0] for stack in once]
    texts = [path for path in paths if path.endswith(("attn2.to_k", "attn2.to_v"))]
    assert len(texts) == sum(
        name.endswith(("attn2.to_k", "attn2.to_v")) for name, _ in hoisted.named_modules()
    )
    assert saved == spent(plain) - spent(hoisted) == 4 * variants.prologue_flops > 0


def test_a_table_is_equal_up_to_rounding():
    expected, found, model = both(dit, denoised, hoist="table")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert levels(model) == {HoistLevel.PER_STEP}


def test_a_table_in_double_precision_is_equal():
    def run(model: nn.Module) -> Tensor:
        return denoised(model.double(), **{k: v.double() for k, v in dit_inputs().items()})

    expected, found, _ = both(dit, run, hoist="table", policy=fxcache.Uniform(2))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "observing", [fxcache.TeaCache(1.0, coefficients=(1.0, 0.0)), fxcache.FirstBlock(0.3)]
)
def test_a_table_works_with_observing_policies(observing):
    expected, found, model = both(dit, denoised, hoist="table", policy=observing)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert levels(model) == {HoistLevel.PER_STEP}


def test_a_table_supports_repeated_timesteps_and_late_starts():
    def run(model: nn.Module) -> Tensor:
        scheduler = HeunDiscreteScheduler()
        inputs = tiny.inputs()
        first = sample(model, 5, scheduler=scheduler, **inputs)
        latents = inputs.pop("sample")
        scheduler = tiny.ddim()
        scheduler.set_timesteps(8)
        with torch.no_grad():
            for t in scheduler.timesteps[3:]:
                predicted = model(latents, t, **inputs).sample
                latents = scheduler.step(predicted, t, latents).prev_sample
        return torch.stack([first, latents])

    expected, found, model = both(tiny.small_unet, run, hoist="table")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert levels(model) == {HoistLevel.PER_STEP}


@torch.no_grad()
def test_unknown_timesteps_are_warned_of():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    plain, inputs = dit(), dit_inputs()
    with fxcache.session(model), pytest.warns(match="no table of timesteps"):  # noqa: PT031
        for last in (900.0, 500.0):
            each = torch.tensor([1000.0, last])
            assert torch.equal(model(timestep=each, **inputs), plain(timestep=each, **inputs))
    assert levels(model) == {HoistLevel.PER_RUN}


def as_numbers(model: nn.Module, schedule: Tensor, seed: int, **inputs: Any) -> list[Tensor]:
    """Return the outputs over a schedule whose elements are new tensors, as in FLUX."""
    given = dit_inputs(seed=seed) | inputs
    latent = given.pop("sample")
    found = []
    with torch.no_grad():
        for t in schedule:
            found.append(model(latent, t.expand(len(latent)).clone(), **given))
            latent = latent + 0.01 * latent.flip(1)
    return found


def test_timesteps_of_one_run_make_the_next_runs_table():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    short, long = torch.linspace(900, 100, 4), torch.linspace(950, 50, 7)
    for seed, schedule in enumerate([short, short, long, long, short]):
        found, expected = (as_numbers(m, schedule, seed) for m in (model, dit()))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert tabulated(model) == [0, 4, 0, 7, 4]


def test_timesteps_are_looked_up_only_if_all_are_equal():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    inputs, plain = dit_inputs(), dit()
    first, same = torch.tensor([950.0, 950.0]), torch.tensor([900.0, 900.0])
    other = torch.tensor([100.0, 900.0])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", fxcache.FxcacheWarning)
        for seed, schedule in enumerate([(first, same), (first, other), (other, same)]):
            inputs = dit_inputs(seed=seed)
            for t in schedule:
                inputs["sample"] = inputs["sample"] * 0.99
                found, expected = (m(timestep=t, **inputs) for m in (model, plain))
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert tabulated(model) == [0, 1, 0]


def test_signed_zeros_and_nan_have_rows():
    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            x = self.first(x)
            found: Tensor = self.last(self.deep(x) + x) * torch.atan(1 / t) + text
            return found

    model = fxcache.optimize(Inverse().eval(), cut="deep", hoist="table", policy=ALWAYS)
    plain, x = Inverse().eval(), torch.ones(3, 4)
    with torch.no_grad():
        for run, schedule in enumerate([(1.0, 0.0), (1.0, -0.0), (math.nan,), (math.nan,)]):
            text = torch.full((3, 4), float(run))
            for t in schedule:
                found, expected = model(x, t, text), plain(x, torch.tensor(t), text)
                torch.testing.assert_close(found, expected, equal_nan=True)


@torch.no_grad()
def test_no_table_if_a_batch_changes_the_dtype():
    """``where`` promotes a batch of float64, but not a single number."""

    class Chosen(nn.Module):
        frequencies: Tensor

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))
            self.register_buffer("frequencies", torch.linspace(0, 1, 4))

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            x = self.first(x) * torch.where(self.frequencies > 0.5, t / 1000, self.frequencies)
            found: Tensor = self.last(self.deep(x) + x) + text
            return found

    model = fxcache.optimize(Chosen().eval(), cut="deep", hoist="table", policy=ALWAYS)
    plain, x = Chosen().eval(), torch.ones(3, 4)
    with pytest.warns(match="no table of timesteps"):  # noqa: PT031
        for run in range(2):
            text = torch.full((3, 4), float(run))
            for step, t in enumerate((900.3, 500.1, 100.7)):
                latent = x * 0.9**step
                expected = plain(latent, torch.tensor(t, dtype=torch.float64), text)
                assert torch.equal(model(latent, t, text), expected)
    assert tabulated(model) == [0, 0]


@torch.no_grad()
def test_a_row_has_the_memory_order_of_the_graph():
    class Transposed(nn.Module):
        frequencies: Tensor

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.deep, self.last = (nn.Linear(6, 6) for _ in range(3))
            self.register_buffer("frequencies", torch.linspace(0, 1, 6).reshape(1, 2, 3))

        def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            emb = torch.sin((t.reshape(1, 1, 1) / 1000 + self.frequencies).transpose(1, 2))
            x = self.first(x) * emb.transpose(1, 2).view(6)
            found: Tensor = self.last(self.deep(x) + x) + text
            return found

    model = fxcache.optimize(Transposed().eval(), cut="deep", hoist="table", policy=ALWAYS)
    plain, x, text = Transposed().eval(), torch.ones(3, 6), torch.ones(3, 6)
    for t in torch.linspace(900, 100, 4):
        torch.testing.assert_close(model(x, t, text), plain(x, t, text), rtol=1e-5, atol=1e-5)
    assert tabulated(model) == [4]


def test_unused_hoisting_is_not_reported_as_saved():
    example = {**dit_inputs(), "timestep": torch.tensor([900.0, 900.0])}
    model = fxcache.optimize(
        dit(), hoist="table", policy=ALWAYS, capture=fxcache.CaptureConfig(example_inputs=example)
    )
    to_come = fxcache.report(model).captures[0].hoisted_weight_bytes
    saved = []
    for seed in range(2):
        as_numbers(model, torch.linspace(900, 100, 3), seed)
        saved.append(fxcache.report(model).captures[0].hoisted_weight_bytes)
    once = fxcache.optimize(dit(), hoist="once", policy=ALWAYS)
    denoised(once)
    assert saved[0] == fxcache.report(once).captures[0].hoisted_weight_bytes < saved[1]
    assert saved[1] == to_come


def test_timesteps_are_remembered_and_dropped():
    heard = TimestepHistory()
    assert heard.begin() == ()
    for value, uniform in ((9.0, True), (5.0, True), (7.0, False)):
        heard.add(Number(value, uniform=uniform))
    heard.add(Place(3, 4))
    assert heard.begin() == (9.0, 5.0)
    heard.add(Number(5.0))
    for _ in range(MAX_AGE - 1):
        assert heard.begin() == (9.0, 5.0)
    assert heard.begin() == (5.0,)
    for value in range(2 * MAX_ROWS):
        heard.add(Number(float(value)))
    assert len(heard.begin()) == MAX_ROWS


def tabulated(model: nn.Module) -> list[int]:
    """Return the number of steps that took a row of a table, for each run."""
    return [len(run.tabulated) for run in fxcache.report(model).runs]


def test_rewritten_timesteps_make_a_new_table():
    model = fxcache.optimize(dit(), hoist="table", policy=ALWAYS)
    plain, inputs, timesteps = dit(), dit_inputs(), torch.linspace(900, 100, 4)
    with torch.no_grad():
        for _ in range(2):
            for t in timesteps:
                torch.testing.assert_close(
                    model(timestep=t, **inputs), plain(timestep=t, **inputs), rtol=1e-5, atol=1e-5
                )
            timesteps.mul_(0.5)


@torch.no_grad()
def test_a_prompt_rewritten_during_a_run_stops_hoisting():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    inputs = dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for step, t in enumerate(torch.linspace(900, 100, 6)):
            if step == 3:
                inputs["text"].mul_(2)
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))


@torch.no_grad()
def test_weights_written_during_a_run_stop_hoisting():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    inputs = dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for step, t in enumerate(torch.linspace(900, 100, 4)):
            if step == 2:
                for module in (model, plain):
                    module.layers[1].key_value.weight.mul_(1.5)
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))


@torch.no_grad()
def test_a_keyed_request_hoists_its_new_prompt():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    for seed in range(3):
        inputs = dit_inputs(seed=seed)
        for t in torch.linspace(900, 100, 3):
            with fxcache.session(model, key="one"):
                assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
    assert levels(model) == {HoistLevel.PER_RUN}


@torch.no_grad()
def test_requests_in_turns_hoist_their_prompts():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    for run in range(2):
        requests = [dit_inputs(seed=2 * run + i) for i in range(2)]
        schedules = [torch.linspace(900, 100, 4) for _ in requests]
        for step in range(4):
            for inputs, timesteps in zip(requests, schedules, strict=True):
                t = timesteps[step]
                assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
    assert levels(model) == {HoistLevel.PER_RUN}


def test_inference_tensors_are_not_hoisted():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    with pytest.warns(match="inference mode"), torch.inference_mode():  # noqa: PT031
        inputs, timesteps = dit_inputs(), torch.linspace(900, 100, 4)
        for t in timesteps:
            inputs["text"].mul_(1.1)
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
    assert levels(model) == {HoistLevel.NOTHING}


def test_by_default_what_prevents_hoisting_is_noted_and_no_warning():
    model, plain = fxcache.optimize(dit(), ALWAYS), dit()
    inputs, timesteps = dit_inputs(), torch.linspace(900, 100, 4)
    with torch.inference_mode():
        text = inputs.pop("text") * 1.0
        for t in timesteps:
            assert torch.equal(
                model(timestep=t, text=text, **inputs), plain(timestep=t, text=text, **inputs)
            )
    assert levels(model) == {HoistLevel.NOTHING}
    assert "inference mode" in str(fxcache.report(model))


@torch.no_grad()
def test_by_default_a_loop_that_prevents_hoisting_keeps_to_two_graphs():
    model, inputs = fxcache.optimize(dit(), fxcache.Uniform(2)), dit_inputs()
    text, made = inputs.pop("text"), []
    for _ in range(3):
        for t in torch.linspace(900, 100, 4):
            model(timestep=t, text=text.clone(), **inputs)  # another tensor at every step
        variants = variants_of(model)
        made.append({key.hoisted for key in variants.made})
    assert refreshes(model)[1:] == [[0, 2]] * 2
    assert made[0] == made[2]
    levels_at_the_end = [step.level for step in optimized_engine(model).runs[-1].steps]
    assert set(levels_at_the_end) == {HoistLevel.NOTHING}
    assert "changed during a run" in str(fxcache.report(model))


def test_guidance_at_half_the_batch_is_hoisted():
    cache = fxcache.GuidanceCache(interval=3, start=0.2)
    expected, found, model = both(tiny.small_unet, guided_sample, guidance=cache)
    assert torch.equal(found, expected)
    assert [levels_of(variants) for variants in captured(model)] == [{HoistLevel.PER_RUN}] * 2


def levels_of(variants: Variants) -> set[HoistLevel]:
    return {key.hoisted for key in variants.made if key.hoisted}


@pytest.mark.sweep(1)
@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("hoist", ["once", "table"])
def test_two_graphs_and_no_recompilation(hoist, offload):
    counter, cache = CompileCounterWithBackend("aot_eager"), fxcache.CacheConfig(offload=offload)
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3), hoist=hoist, cache=cache)
    compiled = torch.compile(unet, backend=counter, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in (0, 1):
            sample(compiled, 5, **tiny.inputs(seed=seed))
    assert counter.frame_count == 2
    assert refreshes(unet) == [[0, 3]] * 2


class Telling(nn.Module):
    """Also returns the embedded text, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read, self.deep, self.last = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        read = self.read(text)
        return self.last(self.deep(x) + x * t) + read, read, read[0]


@torch.no_grad()
def test_writing_to_an_output_does_not_change_hoisted_values():
    model = fxcache.optimize(Telling().eval(), cut="deep", hoist="once", policy=ALWAYS)
    plain, x, text = Telling().eval(), torch.ones(3, 4), torch.randn(3, 4)
    for t in torch.linspace(900, 100, 3):
        found, expected = model(x, t, text), plain(x, t, text)
        for value, like in zip(found, expected, strict=True):
            assert torch.equal(value, like)
            value.fill_(torch.nan)


def test_weights_that_no_step_reads_any_more_are_reported():
    bytes_read = {}
    for hoist in (None, "once", "table"):
        model = fxcache.optimize(dit(), hoist=hoist)
        denoised(model)
        report = fxcache.report(model)
        (capture,) = report.captures
        bytes_read[hoist] = capture.weight_bytes["refresh"]
        whole = sum(p.nbytes for p in dit().parameters())
        assert capture.weight_bytes["refresh"] + capture.hoisted_weight_bytes == whole
        assert (report.hoisted_bytes > 0) == bool(hoist)
        assert ("read once a run" in str(report)) == bool(hoist)
    layers = dit().layers
    texts = sum(p.nbytes for layer in layers for p in layer.key_value.parameters())
    modulations = sum(p.nbytes for layer in layers for p in layer.modulation.parameters())
    timesteps = sum(p.nbytes for p in dit().time.parameters())
    assert bytes_read[None] - bytes_read["once"] == texts
    assert bytes_read["once"] - bytes_read["table"] == modulations + timesteps


@pytest.mark.parametrize("wrong", [True, "always", 1])
def test_wrong_values_of_hoist_are_refused(wrong):
    with pytest.raises(fxcache.ConfigError, match="hoist"):
        fxcache.optimize(dit(), hoist=wrong)


class Small(nn.Module):
    """``forward(x, t, text)``: a stream of three blocks that read the embedded text."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(8, 4)
        self.text, self.time = nn.Linear(4, 8), nn.Linear(1, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def read(self, text: Tensor) -> Tensor:
        found: Tensor = self.text(text)
        return found

    def embed(self, t: Tensor) -> Tensor:
        found: Tensor = self.time(t.reshape(-1, 1) / 1000)
        return found

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        read = self.read(text)[:, :1]
        h = self.enter(x) + self.embed(t) + read
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h), read


class Noisy(Small):
    def read(self, text: Tensor) -> Tensor:
        return super().read(text + torch.randn_like(text))


class Looked(Small):
    """Looks its timesteps up; the last one of a schedule may be missing."""

    def embed(self, t: Tensor) -> Tensor:
        return super().embed(t) * torch.arange(1000.0)[t.long().reshape(-1)].reshape(-1, 1)


class Named(Small):
    """Has the names of inputs that graphs use themselves."""

    def forward(  # type: ignore[override]
        self, x: Tensor, t: Tensor, hoisted_0: Tensor, cached: list[Tensor], weights: Tensor
    ) -> tuple[Tensor, ...]:
        found, read = super().forward(x, t, hoisted_0)
        return found + weights + cached[0], read


@torch.no_grad()
def assert_equal(
    model: nn.Module,
    plain: nn.Module,
    timesteps: Tensor,
    steps: int = 0,
    atol: float = 0,
    **more: Any,
) -> None:
    """Compare both step by step, as callers that write to their results."""
    text, generator = torch.randn(2, 5, 4), torch.Generator().manual_seed(0)
    given = {**more} if more else {"text": text}
    for t in timesteps[: steps or len(timesteps)]:
        x, outputs = torch.randn(2, 5, 4, generator=generator), []
        for called in (model, plain):
            torch.manual_seed(int(t))
            outputs.append(called(x, t, **given))
        for found, expected in zip(*outputs, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)
            found.fill_(torch.nan)


SCHEDULE = torch.linspace(900, 100, 4)
OBSERVING = fxcache.FirstBlock(1e-9)  # which refreshes at every step


@pytest.mark.parametrize("hoist", ["once", "table"])
def test_shared_values_are_not_written(hoist):
    """The output is a view of a hoisted value, which both graphs of a step read."""
    model = fxcache.optimize(Small().eval(), hoist=hoist, policy=OBSERVING)
    assert_equal(model, Small().eval(), SCHEDULE, atol=1e-6)
    assert levels(model) == {HoistLevel.PER_RUN if hoist == "once" else HoistLevel.PER_STEP}


@pytest.mark.parametrize("hoist", ["once", "table"])
def test_random_values_are_not_hoisted(hoist):
    model = fxcache.optimize(Noisy().eval(), hoist=hoist, policy=ALWAYS)
    assert_equal(model, Noisy().eval(), SCHEDULE, atol=1e-6)


def test_without_a_table_steps_compute_the_values():
    model = fxcache.optimize(Looked().eval(), hoist="table", policy=ALWAYS)
    with pytest.warns(fxcache.FxcacheWarning, match="no table of timesteps"):
        assert_equal(model, Looked().eval(), torch.tensor([999, 749, 499, -1001]), steps=3)
    assert levels(model) == {HoistLevel.PER_RUN}


def test_strided_timesteps_have_rows():
    model = fxcache.optimize(Small().eval(), hoist="table", policy=ALWAYS)
    strided = torch.from_numpy(torch.linspace(900, 100, 10).numpy()[::2])
    assert_equal(model, Small().eval(), strided, atol=1e-6)
    assert levels(model) == {HoistLevel.PER_STEP}


@torch.no_grad()
def test_a_changed_batch_hoists_again():
    sizes = {"x": (0,), "t": (0,)}
    model = fxcache.optimize(
        Small().eval(), hoist="table", policy=ALWAYS, capture=fxcache.CaptureConfig(dynamic=sizes)
    )
    plain, text, timesteps = Small().eval(), torch.randn(1, 5, 4), SCHEDULE
    for batch in (4, 2, 3):
        for t in timesteps:
            x = torch.randn(batch, batch, 4)
            found, expected = (called(x, t.expand(batch), text) for called in (model, plain))
            torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_next_run_notices_uncounted_writes():
    model, plain = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit()
    inputs = dit_inputs()
    for _ in range(2):
        for t in torch.linspace(900, 100, 3):
            assert torch.equal(model(timestep=t, **inputs), plain(timestep=t, **inputs))
        inputs["text"].data.mul_(2)
        for module in (model, plain):
            for parameter in module.parameters():
                parameter.data.mul_(1.5)


@torch.no_grad()
def test_timestep_weights_written_during_a_run_stop_the_table():
    model, plain = fxcache.optimize(dit(), hoist="table", policy=ALWAYS), dit()
    inputs = dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for step, t in enumerate(SCHEDULE):
            if step == 2:
                for module in (model, plain):
                    module.layers[1].modulation.weight.mul_(1.5)
            torch.testing.assert_close(model(timestep=t, **inputs), plain(timestep=t, **inputs))


@torch.no_grad()
def test_the_next_run_hoists_again_after_a_change():
    model, inputs = fxcache.optimize(dit(), hoist="once", policy=ALWAYS), dit_inputs()
    with pytest.warns(match="changed during a run"):  # noqa: PT031
        for run in range(2):
            for step, t in enumerate(torch.linspace(900, 100, 3)):
                if (run, step) == (0, 1):
                    inputs["text"].mul_(2)
                model(timestep=t, **inputs)
    engine = optimized_engine(model)
    variants = variants_of(model)
    per_run = [[step.flops for step in run.steps] for run in engine.runs]
    full = variants.full_flops
    assert per_run[0][1:] == [full] * 2
    assert max(per_run[1][1:]) < full == per_run[1][0]


@pytest.mark.parametrize("hoist", [None, "once", "table"])
@pytest.mark.parametrize("policy", [ALWAYS, fxcache.TaylorSeer(1, order=1), OBSERVING])
def test_inputs_with_names_of_placeholders_work(hoist, policy):
    model = fxcache.optimize(Named().eval(), hoist=hoist, policy=policy)
    more: dict[str, Any] = {
        "hoisted_0": torch.randn(2, 5, 4),
        "cached": [torch.ones(4)],
        "weights": torch.ones(4),
    }
    assert_equal(model, Named().eval(), SCHEDULE, atol=1e-6, **more)


@torch.no_grad()
def test_one_tensor_in_two_inputs_is_hoisted():
    class Twice(Small):
        def forward(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
            h = self.enter(x * r / 1000) + self.embed(t)
            for block in self.blocks:
                h = h + block(h)
            found: Tensor = self.leave(h)
            return found

    model = fxcache.optimize(Twice().eval(), hoist="table", policy=ALWAYS)
    plain, x = Twice().eval(), torch.randn(2, 5, 4)
    with fxcache.session(model, key="one"):
        for t in SCHEDULE:
            torch.testing.assert_close(model(x, t, t), plain(x, t, t))
    assert levels(model) == {HoistLevel.PER_STEP}
