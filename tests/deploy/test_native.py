"""Tests native code: it gives the results of its graphs, and refuses everything else."""

import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import fxcache
from fxcache._torch import MachineCode
from fxcache.rewrite.variants import NOTHING
from tests.deploy.natives import ANY_BATCH, MOST, digest_of_manifest, edit_native, error_of
from tests.deploy.tampering import edit
from tests.deploy.test_round_trip import STEPS, denoised
from tests.engines import variants_of
from tests.loops import refreshes
from tests.plain import dit_inputs


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MachineCode]]:
    """The machine code that ran, call by call."""
    found: list[MachineCode] = []
    run = MachineCode.run

    def noting(self: MachineCode, inputs: Any) -> list[Tensor]:
        found.append(self)
        return run(self, inputs)

    monkeypatch.setattr(MachineCode, "run", noting)
    return found


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_native_code_gives_the_results_of_the_graphs(compiled, runs, batch):
    native, plain = fxcache.load(compiled, native=True), fxcache.load(compiled)
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
    native = fxcache.load(compiled, native=True)
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


@pytest.mark.parametrize("change", [double_in_place, replace_weight, replace_data])
def test_new_weights_are_used(compiled, change):
    models = fxcache.load(compiled, native=True), fxcache.load(compiled)
    before = denoised(models[0])
    for model in models:
        denoised(model)
        change(model)
    found, expected = map(denoised, models)
    assert error_of(found, expected) < MOST
    assert error_of(found, before) > 0.01


def test_all_graphs_share_the_weights_of_the_model(compiled):
    weights = dict(fxcache.load(compiled).state_dict())
    native = fxcache.load(compiled, native=True, weights=weights)
    denoised(native)
    for groups in (NOTHING, variants_of(native).all):
        code: Any = variants_of(native).variant(groups).code
        held = code._held[0]
        assert held["w_head_weight"].data_ptr() == weights["head.weight"].data_ptr()
    transposed = weights | {"head.weight": weights["head.weight"].t().contiguous().t()}
    with pytest.raises(fxcache.ArtifactError, match=r"head\.weight is .* with strides \[1, 4\]"):
        denoised(fxcache.load(compiled, native=True, weights=transposed))


def bad_inputs() -> dict[str, tuple[Callable[[list[Tensor]], None], str]]:
    """Return changes of the inputs sample, timestep, text and cached value, and their errors."""

    def changed(index: int, change: Callable[[Tensor], Tensor]) -> Callable[[list[Tensor]], None]:
        def run(inputs: list[Tensor]) -> None:
            inputs[index] = change(inputs[index])

        return run

    def swapped(value: Tensor) -> Tensor:
        """Return the same values with the last two dimensions in another order in memory."""
        return value.mT.contiguous().mT

    return {
        "float64": (changed(0, Tensor.double), "float64, not float32"),
        "an integer": (changed(1, Tensor.long), "int64, not float32"),
        "too small": (changed(0, lambda x: x[:, :8].contiguous()), r"\[2, 8, 4\], not"),
        "too many dimensions": (changed(0, lambda x: x[None]), r"\[1, 2, 16, 4\], not"),
        "one text": (changed(2, lambda x: x[:1]), r"\[1, 5, 16\], not"),
        "other strides": (changed(0, swapped), "another order, or gaps"),
        "gaps": (changed(0, lambda x: x.repeat(1, 1, 2)[..., ::2]), "another order, or gaps"),
        "meta": (changed(0, lambda x: x.to("meta")), "on meta, not on cpu"),
        "cached float64": (changed(3, Tensor.double), "float64, not float32"),
        "cached of another batch": (changed(3, lambda x: x[:1]), r"\[1, 16, 16\], not"),
        "cached with other strides": (changed(3, swapped), "another order, or gaps"),
        "no cached value": (lambda inputs: inputs.__delitem__(3), "takes 4 inputs, not 3"),
        "batch 1": (one_image, "the size 1 is not from 2"),
    }


def one_image(inputs: list[Tensor]) -> None:
    inputs[:] = [value[:1] if value.dim() else value for value in inputs]


BAD = bad_inputs()


@pytest.mark.parametrize(("change", "error"), BAD.values(), ids=BAD)
def test_other_inputs_are_refused_before_the_code_runs(loaded, runs, change, error):
    variants = variants_of(loaded)
    values = dit_inputs()
    inputs = [values["sample"], torch.tensor(900.0), values["text"], torch.zeros(2, 16, 16)]
    function = variants.variant(variants.all).function
    function(*inputs)
    runs.clear()
    change(inputs)
    with pytest.raises(fxcache.ArtifactError, match=error):
        function(*inputs)
    assert runs == []


@pytest.fixture(scope="module")
def loaded(compiled: Path) -> nn.Module:
    model = fxcache.load(compiled, native=True)
    denoised(model)
    return model


def test_a_call_with_other_strides_is_refused(loaded):
    inputs = dit_inputs()
    sample = inputs["sample"].mT.contiguous().mT
    with torch.no_grad(), pytest.raises(fxcache.ArtifactError, match="another order, or gaps"):
        loaded(sample, torch.tensor(900.0), inputs["text"])


def test_a_graph_that_was_not_compiled_runs_with_a_warning(compiled, runs):
    native, plain = fxcache.load(compiled, native=True), fxcache.load(compiled)
    for model in (native, plain):
        fxcache.optimize(model, fxcache.Uniform(2), cut="layers.0.out", capture=ANY_BATCH)
    with pytest.warns(fxcache.FxcacheWarning, match="the graph DiT_.* was not compiled"):
        found = denoised(native)
    assert all(map(torch.equal, found, denoised(plain)))
    assert runs == []
    assert any("was not compiled" in notice for notice in fxcache.report(native).notices)


def test_another_policy_with_the_same_graphs_runs_native_code(compiled, runs):
    native, plain = fxcache.load(compiled, native=True), fxcache.load(compiled)
    for model in (native, plain):
        fxcache.optimize(model, fxcache.Explicit((0, 1, 5)), hoist=None, capture=ANY_BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert error_of(denoised(native), denoised(plain)) < MOST
    assert len(runs) == STEPS


def test_offloading_excludes_native_code(compiled, runs):
    native = fxcache.load(compiled, native=True)
    offload = fxcache.CacheConfig(offload=True)
    fxcache.optimize(native, fxcache.Uniform(3), cache=offload, capture=ANY_BATCH)
    with pytest.warns(fxcache.FxcacheWarning, match="offloading moves weights"):
        denoised(native)
    assert runs == []


@pytest.mark.usefixtures("clean_dynamo")
def test_torch_compile_compiles_the_graphs_itself(compiled, runs):
    counter = CompileCounter()
    found = denoised(torch.compile(fxcache.load(compiled, native=True), backend=counter))
    assert counter.frame_count == 2
    assert runs == []
    assert all(map(torch.equal, found, denoised(fxcache.load(compiled))))


TARGETS = {
    "torch": ("2.0.0", "the torch '2.0.0'"),
    "device": ("cuda", "the device 'cuda'"),
    "machine": ("z80", "the machine 'z80'"),
    "features": (["avx1024"], "a CPU with avx1024"),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, (v, _) in TARGETS.items()], ids=TARGETS)
def test_code_for_another_machine_is_refused(native_folder, name, value):
    edit_native(native_folder, lambda manifest: manifest["target"].update({name: value}))
    with pytest.raises(fxcache.ArtifactError, match=re.escape(TARGETS[name][1])):
        fxcache.load(native_folder, native=True)
    fxcache.load(native_folder)


def test_code_of_another_artifact_is_refused(native_folder):
    edit(
        native_folder, "manifest.json", lambda manifest: manifest["versions"].update(torch="2.0.0")
    )
    with pytest.raises(fxcache.ArtifactError, match="from another artifact"):
        fxcache.load(native_folder, native=True)
    digest = digest_of_manifest(native_folder)
    edit_native(native_folder, lambda manifest: manifest.update(artifact=digest))
    fxcache.load(native_folder, native=True)


def test_changed_code_is_refused(native_folder):
    package = native_folder / "native" / "graphs.pt2"
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 1
    package.write_bytes(content)
    with pytest.raises(fxcache.ArtifactError, match="another content than the manifest says"):
        fxcache.load(native_folder, native=True)


DAMAGE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "format": (lambda m: m.update(fxcache_native=2), "no native code of format 1"),
    "weight": (lambda m: m["graphs"]["full_0"]["weights"].popitem(), "the code has others"),
    "size": (lambda m: m["graphs"]["full_0"]["inputs"][0].update(shape=["s"]), "unknown size"),
    "graph": (lambda m: m["graphs"].update({"a/b": m["graphs"]["full_0"]}), "is not allowed"),
    "order": (lambda m: m["graphs"]["full_0"]["inputs"][0].update(order=[0, 0, 0]), "order"),
    "program": (lambda m: m["graphs"]["full_0"].update(program=1), "not a whole number"),
    "name": (lambda m: m["graphs"].update(x=m["graphs"].pop("full_0")), "cannot be loaded"),
    "unknown": (lambda m: m.update(more=1), "unknown fields: more"),
}


@pytest.mark.parametrize(("change", "error"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_manifests_are_refused(native_folder, change, error):
    edit_native(native_folder, change)
    with pytest.raises(fxcache.ArtifactError, match=error):
        fxcache.load(native_folder, native=True)


def test_links_are_not_followed(native_folder, tmp_path):
    (native_folder / "native").rename(tmp_path / "elsewhere")
    with pytest.raises(fxcache.ArtifactError, match="has no native code"):
        fxcache.load(native_folder, native=True)
    (native_folder / "native").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(fxcache.ArtifactError, match="native is a link"):
        fxcache.load(native_folder, native=True)


def test_exporting_again_removes_the_code(native_folder):
    model = fxcache.load(native_folder)
    denoised(model)
    fxcache.export(model, native_folder)
    assert not (native_folder / "native").exists()
