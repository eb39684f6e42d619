"""Tests optimised pipelines: each call is one run of all denoisers."""

import asyncio
import copy
import gc
import json
import pickle
import threading
import weakref
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForText2Image,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from torch import Tensor, nn

import fxcache
from fxcache.runtime.module import engine_of
from fxcache.runtime.pipeline import PipelineRun
from fxcache.runtime.session import current_session, open_sessions
from tests import tiny
from tests.loops import refreshes
from tests.test_cli import complaint, said

pytestmark = pytest.mark.usefixtures("shared_captures")


class Denoiser(nn.Module):
    """``forward(sample [1, 4], timestep [], text [1, 6])``: two levels joined by a skip."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(16, 4)
        self.deep, self.text = nn.Linear(8, 8), nn.Linear(6, 8)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        h = self.enter(sample)
        deep = self.deep(torch.tanh(h) + self.text(text))
        return self.leave(torch.cat([deep, h], dim=-1)) * (1 + timestep / 1000)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(tokens)


PROMPT = torch.ones(1, 6)  # one tensor, which tells no two calls of pipelines apart


class Pipeline:
    """Has two experts: the second runs in the second half. Timesteps are new tensors."""

    def __init__(self, **components: Any) -> None:
        self.components = components
        self.scheduler = SimpleNamespace(step_index=0)

    @torch.no_grad()
    def __call__(self, seed: int = 0, steps: int = 6, inner: Any = None) -> Tensor:
        """Draws a latent [1, 4]."""
        generator = torch.Generator().manual_seed(seed)
        latent = torch.randn(1, 4, generator=generator)
        self.components["text_encoder"](PROMPT)
        for i in range(steps):
            late = 2 * i >= steps and "transformer_2" in self.components
            model = self.components["transformer_2" if late else "transformer"]
            latent = latent - 0.1 * model(latent, torch.tensor(900.0 - 100 * i), PROMPT)
            if inner and i == 1:
                inner()
        return latent


def pipeline(**components: Any) -> Pipeline:
    defaults = {"transformer": Denoiser(0).eval(), "transformer_2": Denoiser(1).eval()}
    return Pipeline(**{"text_encoder": Encoder().eval(), **defaults, **components})


def one_expert() -> Pipeline:
    return Pipeline(text_encoder=Encoder().eval(), transformer=Denoiser().eval())


def test_only_denoisers_are_optimised():
    pipe = pipeline()
    expected, kind = pipe(), type(pipe)
    assert fxcache.optimize(pipe, fxcache.Uniform(1)) is pipe
    assert isinstance(pipe, kind)
    assert (type(pipe).__name__, type(pipe).__qualname__) == ("Pipeline", "Pipeline")
    assert pipe.__call__.__doc__ == kind.__call__.__doc__
    assert torch.equal(pipe(), expected)
    optimised = {n for n, m in pipe.components.items() if engine_of(m) is not None}
    assert optimised == {"transformer", "transformer_2"}
    assert fxcache.restore(pipe) is pipe
    assert type(pipe) is kind
    assert vars(pipe).keys() == {"components", "scheduler"}
    assert not any(engine_of(m) for m in pipe.components.values())


def test_each_call_is_one_run():
    pipe = fxcache.optimize(pipeline(), fxcache.Uniform(2))
    first = pipe(seed=1)
    assert torch.equal(pipe(seed=1), first)
    pipe(steps=4)
    for name in ("transformer", "transformer_2"):
        assert refreshes(pipe.components[name]) == [[0, 2], [0, 2], [0]]


def test_the_report_has_each_component():
    pipe = fxcache.optimize(pipeline(), fxcache.Uniform(2))
    pipe()
    report = fxcache.report(pipe)
    assert report.to_dict() == {
        "pipeline": "Pipeline",
        "components": {
            name: fxcache.report(pipe.components[name]).to_dict()
            for name in ("transformer", "transformer_2")
        },
    }
    assert report["transformer"].runs[0].steps == 3
    assert all(name in str(report) for name in ("transformer of Pipeline", "transformer_2 of"))


def test_a_saved_report_is_printed_and_drawn_again(tmp_path, capsys):
    pipe, saved = fxcache.optimize(pipeline(), fxcache.Uniform(2)), tmp_path / "report.json"
    pipe()
    report = fxcache.report(pipe)
    report.save(saved)
    assert said(capsys, "report", saved).strip() == str(report)
    assert "one of: transformer, transformer_2" in complaint(capsys, "strip", saved)
    strip = ["strip", saved, "--out", tmp_path / "strip.png", "--json", "--component"]
    assert json.loads(said(capsys, *strip, "transformer_2"))["steps"] == 3
    report["transformer"].save(saved)
    assert said(capsys, "report", saved).strip() == str(report["transformer"])
    assert json.loads(said(capsys, *strip[:-1]))["steps"] == 3
    with pytest.raises(fxcache.ModelFileError, match="cannot be written"):
        report.save(tmp_path)
    (tmp_path / "none.json").write_text('{"components": []}')
    assert "not an fxcache report" in complaint(capsys, "report", tmp_path / "none.json")


def test_clear_drops_the_values_of_all_denoisers():
    pipe = fxcache.optimize(pipeline())
    transformer = pipe.components["transformer"]
    with torch.no_grad():
        transformer(torch.ones(1, 4), torch.tensor(5.0), torch.ones(1, 6))
    assert fxcache.report(pipe)["transformer"].cached_bytes
    fxcache.clear(pipe)
    assert not fxcache.report(pipe)["transformer"].cached_bytes
    assert fxcache.report(pipe)["transformer"].captures


def test_optimising_twice_changes_the_settings():
    pipe = fxcache.optimize(pipeline(), fxcache.Uniform(2))
    kind, _ = type(pipe), pipe()
    captured = fxcache.report(pipe)["transformer"].captures
    fxcache.optimize(pipe, fxcache.Uniform(3))
    pipe()
    assert type(pipe) is kind
    assert refreshes(pipe.components["transformer"]) == [[0]]
    assert len(fxcache.report(pipe)["transformer"].captures) == len(captured) == 1


def test_a_pipeline_without_a_denoiser_is_refused():
    pipe = Pipeline(text_encoder=Encoder())
    with pytest.raises(fxcache.ConfigError, match=r"text_encoder \(Encoder\)"):
        fxcache.optimize(pipe)
    assert type(pipe) is Pipeline
    for call in (fxcache.report, fxcache.clear):
        with pytest.raises(fxcache.StateError, match="Pipeline is not optimised"):
            call(pipe)


def test_what_is_not_optimised_is_restored_to_what_it_is():
    pipe = pipeline()
    model, kind = pipe.components["transformer"], type(pipe)
    for _ in range(2):
        assert fxcache.restore(model) is model
        assert fxcache.restore(pipe) is pipe
    fxcache.optimize(pipe)
    assert fxcache.restore(fxcache.restore(pipe)) is pipe
    assert type(pipe) is kind
    around = nn.Sequential(fxcache.optimize(model))
    with pytest.raises(fxcache.StateError, match="pass that one to "):
        fxcache.restore(around)


@pytest.mark.parametrize("call", [fxcache.list_cuts, fxcache.session, fxcache.Plan.of])
def test_a_pipeline_in_place_of_a_module_is_named_with_its_denoisers(call):
    given = {"policy": fxcache.Uniform(3)} if call == fxcache.Plan.of else {}
    with pytest.raises(fxcache.ConfigError, match="Pipeline is a pipeline") as raised:
        call(pipeline(), **given)
    assert raised.value.where == f"fxcache.{call.__qualname__}"
    assert "pass its denoiser: pipe.transformer or pipe.transformer_2" in raised.value.remedy
    assert ("needs no session" in raised.value.remedy) == (call is fxcache.session)
    with pytest.raises(fxcache.ConfigError, match="the class Pipeline is not a torch") as raised:
        call(Pipeline, **given)
    assert raised.value.where == f"fxcache.{call.__qualname__}"


@pytest.mark.parametrize("wrong", ["train", "forward"])
def test_an_error_leaves_all_denoisers_unchanged(wrong):
    pipe = pipeline()
    first, second = pipe.components["transformer"], pipe.components["transformer_2"]
    if wrong == "train":
        second.add_module("dropout", nn.Dropout(0.1))
        second.train()
    else:
        second.forward = lambda *args: args[0]
    with pytest.raises(fxcache.FxcacheError):
        fxcache.optimize(pipe)
    assert (type(pipe), type(first), type(second)) == (Pipeline, Denoiser, Denoiser)


def test_a_plan_for_another_denoiser_names_the_component():
    pipe = pipeline()
    plan = fxcache.Plan.of(pipe.components["transformer"], fxcache.Uniform(4))
    with pytest.raises(fxcache.PlanError, match="component transformer_2"):
        fxcache.optimize(pipe, plan)
    assert not any(engine_of(m) for m in pipe.components.values())
    alone = Pipeline(text_encoder=Encoder(), transformer=pipe.components["transformer"])
    fxcache.optimize(alone, plan)
    alone()
    assert refreshes(alone.components["transformer"]) == [[0, 4]]


def test_nested_calls_are_separate_runs():
    shared = Denoiser().eval()
    outer = Pipeline(text_encoder=Encoder().eval(), transformer=shared)
    inner = Pipeline(text_encoder=Encoder().eval(), transformer=shared)
    for pipe in (outer, inner):
        fxcache.optimize(pipe, fxcache.Uniform(3))
    alone = outer(seed=1), inner(seed=2)
    drawn: list[Tensor] = []
    found = outer(seed=1, inner=lambda: drawn.append(inner(seed=2)))
    assert torch.equal(found, alone[0])
    assert torch.equal(drawn[0], alone[1])
    assert refreshes(shared)[2:] == [[0, 3], [0, 3]]


def test_a_call_inside_the_same_pipelines_call():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(3))
    alone = pipe(seed=1)
    assert torch.equal(pipe(seed=1, inner=lambda: pipe(seed=1)), alone)


def test_concurrent_calls_in_threads():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(3))
    alone = [pipe(seed=seed) for seed in range(4)]
    found: dict[int, Tensor] = {}
    barrier = threading.Barrier(4)

    def draw(seed: int) -> None:
        found[seed] = pipe(seed=seed, inner=barrier.wait)

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], alone[seed]) for seed in range(4))
    assert refreshes(pipe.components["transformer"]) == [[0, 3]] * 8


def test_concurrent_calls_in_tasks():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(3))
    alone = [pipe(seed=seed) for seed in range(2)]

    async def both() -> list[Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(pipe, seed) for seed in range(2)))

    assert all(map(torch.equal, asyncio.run(both()), alone))


def test_a_call_that_fails_ends_its_run():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(9))
    expected = pipe()

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(seed=5, inner=fail)
    assert open_sessions.get() == ()
    assert torch.equal(pipe(), expected)


def schedule(pipe: Any, run: int = -1) -> tuple[int, list[int]]:
    """Return the calls and the refreshes of one of the runs so far."""
    found = fxcache.report(pipe.unet).runs[run]
    return found.steps, found.refreshes


@pytest.mark.parametrize("way", ["error", "interrupt"])
@pytest.mark.parametrize("target", ["pipeline", "session"])
def test_the_length_of_a_run_that_is_cut_short_says_nothing(way, target):
    """The default policy protects the end of a run, which it must know."""

    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 2 and way == "error":
            raise KeyboardInterrupt
        pipe._interrupt = step >= 2
        return values

    def cut_short() -> None:
        with suppress(KeyboardInterrupt):
            draw(pipe, **SIZE, callback_on_step_end=stop)

    pipe = tiny.pipeline()
    fxcache.optimize(pipe if target == "pipeline" else pipe.unet)
    if target == "pipeline":
        cut_short()
    else:
        with suppress(KeyboardInterrupt), fxcache.session(pipe.unet):
            cut_short()
            raise KeyboardInterrupt
    assert schedule(pipe)[0] == 3
    draw(pipe, **SIZE)
    assert schedule(pipe) == (6, [0, 3, 5])


def test_a_pipeline_that_leaves_the_last_steps_to_another_one_protects_its_own_end():
    pipe = fxcache.optimize(tiny.xl_pipeline())
    for _ in range(2):
        draw(pipe, **SIZE, num_inference_steps=12, denoising_end=0.7)
        assert schedule(pipe) == (8, [0, 3, 6, 7])


def test_the_length_of_a_session_that_ends_in_an_error_says_nothing():
    model = fxcache.optimize(Denoiser().eval())
    for calls in (3, 8):
        with suppress(KeyboardInterrupt), torch.no_grad(), fxcache.session(model):
            timesteps = torch.linspace(900, 200, 8)
            for timestep in timesteps[:calls]:
                model(torch.zeros(1, 4), timestep, PROMPT)
            raise KeyboardInterrupt
    assert fxcache.report(model).runs[-1].refreshes == [0, 3, 6, 7]


def test_the_innermost_session_wins():
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(9))
    model = pipe.components["transformer"]
    seen: list[Any] = []

    def look() -> None:
        session = current_session(model)
        assert session is not None
        seen.append(session.pipeline_run)
        with fxcache.session(model, num_steps=3) as own:
            seen.append(current_session(model) is own)

    with fxcache.session(model, num_steps=50) as outer:
        pipe(inner=look)
        assert current_session(model) is outer
    assert isinstance(seen[0], PipelineRun)
    assert seen[0].modules == (model,)
    assert seen[0].schedule.scheduler is pipe.scheduler
    assert seen[1] is True


def test_a_component_that_is_replaced():
    pipe = fxcache.optimize(pipeline(), fxcache.Uniform(3))
    pipe()
    pipe.components["transformer"] = Denoiser(2).eval()
    plain = pipeline(transformer=Denoiser(2).eval())
    with pytest.warns(
        fxcache.FxcacheWarning, match="transformer of Pipeline is not optimised any more"
    ):
        pipe()
    fxcache.restore(pipe.components["transformer_2"])
    with pytest.warns(
        fxcache.FxcacheWarning, match="transformer_2 of Pipeline is not optimised any more"
    ):
        assert torch.equal(pipe(), plain())
    assert torch.equal(pipe(), plain())  # and says so once
    fxcache.optimize(pipe, fxcache.Uniform(3))
    pipe()
    assert refreshes(pipe.components["transformer"]) == [[0]]


def test_compiled_components(clean_dynamo):
    pipe = fxcache.optimize(one_expert(), fxcache.Uniform(3))
    expected = pipe()
    pipe.components["transformer"] = torch.compile(pipe.components["transformer"], backend="eager")
    assert torch.equal(pipe(), expected)
    assert fxcache.report(pipe)["transformer"].runs[-1].refreshes == [0, 3]
    fxcache.restore(pipe)
    compiled = fxcache.optimize(pipe, fxcache.Uniform(3))
    assert torch.equal(compiled(), expected)


def test_copies_and_pickles_stay_optimised():
    pipe = fxcache.optimize(pipeline(), fxcache.Uniform(2))
    expected = pipe()
    for twin in (copy.deepcopy(pipe), pickle.loads(pickle.dumps(pipe)), copy.copy(pipe)):
        assert type(twin) is type(pipe)
        assert torch.equal(twin(), expected)
        assert refreshes(twin.components["transformer"])[-1] == [0, 2]
        assert type(fxcache.restore(twin)) is Pipeline
        if engine_of(pipe.components["transformer"]) is None:  # copy.copy shares the modules
            fxcache.optimize(pipe, fxcache.Uniform(2))


def test_nothing_keeps_a_pipeline_alive():
    pipe = fxcache.optimize(pipeline(), fxcache.Uniform(2))
    pipe()
    model = pipe.components["transformer"]
    references = [weakref.ref(pipe), weakref.ref(pipe.components["transformer_2"])]
    gc.disable()
    try:
        del pipe
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()
    assert engine_of(model)


SIZE = {"height": 32, "width": 32}


def draw(pipe: Any, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    given = {"num_inference_steps": 6, "output_type": "latent", "generator": generator, **options}
    return pipe(tiny.PROMPT, **given).images


@pytest.fixture(scope="module")
def diffusers_pipe() -> Any:
    return tiny.pipeline()


@pytest.fixture
def pipe(diffusers_pipe) -> Any:
    """Return an optimised pipeline of diffusers, and restore it afterwards."""
    yield fxcache.optimize(diffusers_pipe, fxcache.Uniform(3))
    fxcache.restore(diffusers_pipe)


def test_diffusers_pipelines(pipe):
    assert isinstance(pipe, StableDiffusionPipeline)
    first = draw(pipe, **SIZE)
    assert torch.equal(draw(pipe, **SIZE), first)
    assert refreshes(pipe.unet) == [[0, 3], [0, 3]]
    assert list(fxcache.report(pipe).components) == ["unet"]
    assert pipe.to(torch.float32) is pipe
    assert [n for n, m in pipe.components.items() if isinstance(m, nn.Module) and engine_of(m)] == [
        "unet"
    ]


def test_pipelines_made_from_each_other_share_the_optimised_denoiser(pipe):
    image = torch.zeros(1, 3, 32, 32)
    made = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert made.unet is pipe.unet
    assert type(made) is StableDiffusionImg2ImgPipeline
    made.set_progress_bar_config(disable=True)
    draw(made, image=image, strength=1.0)
    assert refreshes(pipe.unet) == [[0, 3]]
    fxcache.optimize(made, fxcache.Uniform(2))
    for back in (StableDiffusionPipeline, AutoPipelineForText2Image):
        assert back.from_pipe(made).unet is pipe.unet
    assert AutoPipelineForImage2Image.from_pipe(pipe).unet is pipe.unet
    assert type(pipe).from_pipe(made).unet is pipe.unet
    fxcache.restore(made)
    assert type(made) is StableDiffusionImg2ImgPipeline


def test_made_from_a_pipeline_whose_module_alone_is_optimised(diffusers_pipe):
    fxcache.optimize(diffusers_pipe.unet)
    made = StableDiffusionImg2ImgPipeline.from_pipe(diffusers_pipe)
    assert made.unet is diffusers_pipe.unet
    fxcache.restore(diffusers_pipe.unet)


def test_saved_and_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is StableDiffusionPipeline
    assert engine_of(loaded.unet) is None
    fxcache.optimize(loaded, fxcache.Uniform(3))
    assert torch.equal(draw(loaded, **SIZE), draw(pipe, **SIZE))


def test_copied(pipe):
    twin = copy.deepcopy(pipe)
    assert torch.equal(draw(twin, **SIZE), draw(pipe, **SIZE))
    assert refreshes(twin.unet) == [[0, 3]]


def test_another_unet_of_diffusers(pipe):
    own = pipe.unet
    pipe.unet = tiny.small_unet()
    with pytest.warns(fxcache.FxcacheWarning, match="unet of StableDiffusionPipeline"):
        draw(pipe, **SIZE)
    pipe.unet = own
    draw(pipe, **SIZE)
    assert refreshes(own)[-1] == [0, 3]
