"""Tests which parts of a pipeline are optimised, restored, reported and copied."""

import copy
import gc
import json
import pickle
import weakref

import pytest
import torch
from torch import nn

import fxcache
from fxcache.runtime.module import engine_of
from tests.loops import refreshes
from tests.runtime.pipeline import Denoiser, Encoder, Pipeline, one_expert, pipeline
from tests.test_cli import complaint, said

pytestmark = pytest.mark.usefixtures("shared_captures")


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
