"""Tests native code: it gives the results of its graphs, and refuses everything else."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import fxcache
from fxcache.cli import main
from fxcache.deploy.native.graph import describe_graph, example_inputs
from fxcache.graph_inputs import InputKind
from fxcache.rewrite.variants import NOTHING
from fxcache.serving import Batcher
from tests.deploy.natives import MOST, error_of, load_native
from tests.deploy.test_round_trip import STEPS, denoised
from tests.engines import variants_of
from tests.loops import refreshes
from tests.plain import dit, dit_inputs


@pytest.mark.sweep(2)
@pytest.mark.parametrize("batch", [2, 3, 7])
def test_native_code_gives_the_results_of_the_graphs(compiled, runs, batch):
    native, plain = load_native(compiled), fxcache.load(compiled)
    found, expected = denoised(native, batch=batch), denoised(plain, batch=batch)
    assert 0 < error_of(found, expected) < MOST
    assert len(runs) == STEPS
    assert len(set(map(id, runs))) == 2, "the full graph, and the one that reuses"
    assert refreshes(native) == refreshes(plain)
    assert fxcache.report(native).notices == []


def test_native_code_runs_only_when_it_is_asked_for(compiled, runs):
    denoised(fxcache.load(compiled))
    assert runs == []


def test_a_table_of_steps_runs_native_code(compiled, runs):
    native = load_native(compiled)
    expected = denoised(native)
    table, cache = fxcache.step_table(native, STEPS), dict[int, Tensor]()
    inputs, latent, found = dit_inputs(), dit_inputs()["sample"], []
    for step, t in enumerate(torch.linspace(900, 100, STEPS)):
        latent = latent - 0.1 * table.run(step, (latent, t, inputs["text"]), cache)[0]
        found.append(latent)
    assert all(map(torch.equal, found, expected))
    assert len(runs) == 2 * STEPS


def double_in_place(model: Any) -> None:
    with torch.no_grad():
        model.head.weight.mul_(2)


def replace_weight(model: Any) -> None:
    model.head.weight = nn.Parameter(2 * model.head.weight.detach())


def replace_data(model: Any) -> None:
    model.head.weight.data = 2 * model.head.weight.detach()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("change", [double_in_place, replace_weight, replace_data])
def test_new_weights_are_used(compiled, change):
    models = load_native(compiled), fxcache.load(compiled)
    before = denoised(models[0])
    for model in models:
        denoised(model)
        change(model)
    found, expected = map(denoised, models)
    assert error_of(found, expected) < MOST
    assert error_of(found, before) > 0.01


def test_all_graphs_share_the_weights_of_the_model(compiled):
    weights = dict(fxcache.load(compiled).state_dict())
    native = load_native(compiled, weights=weights)
    denoised(native)
    for groups in (NOTHING, variants_of(native).all):
        code: Any = variants_of(native).variant(groups).code
        held = code._held[0]
        assert held["w_head_weight"].data_ptr() == weights["head.weight"].data_ptr()
    transposed = weights | {"head.weight": weights["head.weight"].t().contiguous().t()}
    with pytest.raises(fxcache.ArtifactError, match=r"head\.weight is .* with strides \[1, 4\]"):
        denoised(load_native(compiled, weights=transposed))


def test_a_graph_that_was_not_compiled_runs_with_a_warning(compiled, runs):
    native, plain = load_native(compiled), fxcache.load(compiled)
    for model in (native, plain):
        fxcache.optimize(model, fxcache.Uniform(2), cut="layers.0.out")
    with pytest.warns(fxcache.FxcacheWarning, match="the graph DiT_.* was not compiled"):
        found = denoised(native)
    assert all(map(torch.equal, found, denoised(plain)))
    assert runs == []
    assert any("was not compiled" in notice for notice in fxcache.report(native).notices)


def test_another_policy_with_the_same_graphs_runs_native_code(compiled, runs):
    native, plain = load_native(compiled), fxcache.load(compiled)
    for model in (native, plain):
        fxcache.optimize(model, fxcache.Explicit((0, 1, 5)), hoist=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert error_of(denoised(native), denoised(plain)) < MOST
    assert len(runs) == STEPS


def test_offloading_excludes_native_code(compiled, runs):
    native = load_native(compiled)
    offload = fxcache.CacheConfig(offload=True)
    fxcache.optimize(native, fxcache.Uniform(3), cache=offload)
    with pytest.warns(fxcache.FxcacheWarning, match="offloading moves weights"):
        denoised(native)
    assert runs == []


def test_a_copy_runs_native_code_with_weights_of_its_own(compiled, runs):
    native = load_native(compiled)
    twin = copy.deepcopy(native)
    double_in_place(twin)
    expected = denoised(native)
    assert error_of(denoised(twin), expected) > 0.01
    assert all(map(torch.equal, denoised(native), expected))
    assert len(set(map(id, runs))) == 4


@pytest.mark.usefixtures("clean_dynamo")
def test_torch_compile_compiles_the_graphs_itself(compiled, runs):
    counter = CompileCounter()
    found = denoised(torch.compile(load_native(compiled), backend=counter))
    assert counter.frame_count == 2
    assert runs == []
    assert all(map(torch.equal, found, denoised(fxcache.load(compiled))))


class Odd(nn.Module):
    """Uses one weight under two names, a region, and results that are None or an argument."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, None, Tensor]:
        inner = self.first(sample).tanh() * timestep
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inner = inner + self.second(inner)
        return sample + self.second(inner) + torch.tensor([1.0, 2.0, 3.0, 4.0]), None, timestep


class Tail(nn.Linear):
    """Returns the tail of a sequence, as FLUX does: a view, with gaps in its memory."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x, super().forward(x)], dim=1)[:, 1]


class Sliced(nn.Module):
    """Caches a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), Tail(4, 4)

    def forward(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, None, Tensor]:
        return sample + self.second(self.first(sample) * timestep), None, timestep


@torch.no_grad()
def test_cached_values_are_read_without_gaps():
    model = fxcache.optimize(Sliced().eval(), fxcache.Uniform(2), cut="second")
    model(torch.randn(2, 4), torch.tensor(1.0))
    variants = variants_of(model)
    reuse = variants.variant(variants.all)
    (read,) = [
        value
        for spec, value in zip(reuse.signature.inputs, example_inputs(reuse), strict=True)
        if spec.source.kind is InputKind.CACHED
    ]
    assert read.is_contiguous()
    assert describe_graph(reuse, variants.program, 0)["inputs"]


@torch.no_grad()
def test_code_takes_a_timestep_at_any_address(tmp_path, monkeypatch):
    model = fxcache.optimize(Odd().eval(), fxcache.Uniform(2), cut="second")
    model(torch.randn(2, 4), torch.tensor(1.0))
    folder = fxcache.export(model, tmp_path / "artifact")
    offsets = {}

    def record(module: Any, inputs: Sequence[Tensor], dims: Any) -> None:
        offsets.update({tuple(tensor.shape): tensor.storage_offset() for tensor in inputs})
        raise RuntimeError("stopped before the compiler")

    monkeypatch.setattr("fxcache.deploy.compile.compile_graph", record)
    with pytest.raises(fxcache.ArtifactError, match="stopped before the compiler"):
        fxcache.compile_artifact(folder, 4)
    assert offsets == {(2, 4): 0, (): 1}  # in elements: 4 bytes are no multiple of 16


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", [Odd, Sliced])
def test_odd_graphs_are_compiled(tmp_path, runs, kind):
    model = fxcache.optimize(kind().eval(), fxcache.Uniform(2), cut="second")
    calls = [(torch.randn(2, 4), torch.tensor(float(t))) for t in range(4, 0, -1)]
    expected = [model(*call) for call in calls]
    folder = fxcache.export(model, tmp_path / "artifact")
    fxcache.compile_artifact(folder, 4)
    native = load_native(folder)
    found = [native(*call) for call in calls]
    assert error_of([f[0] for f in found], [e[0] for e in expected]) < MOST
    assert all(
        f[1] is None and torch.equal(f[2], e[2]) for f, e in zip(found, expected, strict=True)
    )
    assert len(runs) == len(calls)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "FirstBlock": ({"policy": fxcache.FirstBlock(0.3)}, "FirstBlock decides by values"),
    "int8": ({"cache": fxcache.CacheConfig(dtype=torch.int8)}, "a cache in torch.int8"),
}


@pytest.mark.parametrize(("options", "cause"), REFUSED.values(), ids=REFUSED)
def test_settings_that_a_table_cannot_describe_are_refused(options, cause, tmp_path):
    model = fxcache.optimize(dit(2), **options)
    denoised(model)
    folder = fxcache.export(model, tmp_path / "artifact")
    with pytest.raises(fxcache.ArtifactError, match=cause):
        fxcache.compile_artifact(folder, STEPS)
    assert not (folder / "native").exists()


@pytest.mark.parametrize("steps", [[], [0], [True], [2.5]])
def test_lengths_are_whole_numbers(compiled, steps):
    with pytest.raises(fxcache.ConfigError, match="steps"):
        fxcache.compile_artifact(compiled, steps)


def test_the_command_names_what_is_missing(tmp_path, capsys):
    assert main(["compile", str(tmp_path), "--steps", "3"]) == 1
    assert "manifest.json cannot be read" in capsys.readouterr().err


def test_requests_share_calls_of_native_code(compiled, runs):
    batcher = Batcher(load_native(compiled))
    inputs, t = dit_inputs(3), torch.tensor(700.0)
    futures = [
        batcher.start(STEPS).submit(inputs["sample"][i : i + 1], t, inputs["text"][i : i + 1])
        for i in range(3)
    ]
    batcher.run_round()
    with torch.no_grad():
        expected = dit(2)(inputs["sample"], t, inputs["text"])
    assert len(runs) == 1
    assert error_of([torch.cat([f.result() for f in futures])], [expected]) < MOST
