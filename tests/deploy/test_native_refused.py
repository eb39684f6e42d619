"""Tests that native code refuses other inputs, machines and artifacts before anything runs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.deploy.natives import digest_of_manifest, edit_native, load_native
from tests.deploy.tampering import edit
from tests.deploy.test_round_trip import denoised
from tests.engines import variants_of
from tests.plain import dit_inputs


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
    model = load_native(compiled)
    denoised(model)
    return model


def test_a_call_with_other_strides_is_refused(loaded):
    inputs = dit_inputs()
    sample = inputs["sample"].mT.contiguous().mT
    with torch.no_grad(), pytest.raises(fxcache.ArtifactError, match="another order, or gaps"):
        loaded(sample, torch.tensor(900.0), inputs["text"])


TARGETS = {
    "torch": ("2.0.0", "the torch '2.0.0'"),
    "device": ("cuda", "the device 'cuda'"),
    "machine": ("z80", "the machine 'z80'"),
    "features": (["avx1024"], "a CPU with avx1024"),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize(("name", "value"), [(n, v) for n, (v, _) in TARGETS.items()], ids=TARGETS)
def test_code_for_another_machine_is_refused(native_folder, name, value):
    edit_native(native_folder, lambda manifest: manifest["target"].update({name: value}))
    with pytest.raises(fxcache.ArtifactError, match=re.escape(TARGETS[name][1])):
        load_native(native_folder)
    fxcache.load(native_folder)


def test_code_of_another_artifact_is_refused(native_folder):
    edit(
        native_folder, "manifest.json", lambda manifest: manifest["versions"].update(torch="2.0.0")
    )
    with pytest.raises(fxcache.ArtifactError, match="from another artifact"):
        load_native(native_folder)
    digest = digest_of_manifest(native_folder)
    edit_native(native_folder, lambda manifest: manifest.update(artifact=digest))
    load_native(native_folder)


def test_changed_code_is_refused(native_folder):
    package = native_folder / "native" / "graphs.pt2"
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 1
    package.write_bytes(content)
    with pytest.raises(fxcache.ArtifactError, match="another content than the manifest says"):
        load_native(native_folder)


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


@pytest.mark.sweep(4)
@pytest.mark.parametrize(("change", "error"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_manifests_are_refused(native_folder, change, error):
    edit_native(native_folder, change)
    with pytest.raises(fxcache.ArtifactError, match=error):
        load_native(native_folder)


def test_links_are_not_followed(native_folder, tmp_path):
    (native_folder / "native").rename(tmp_path / "elsewhere")
    with pytest.raises(fxcache.ArtifactError, match="has no native code"):
        load_native(native_folder)
    (native_folder / "native").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(fxcache.ArtifactError, match="native is a link"):
        load_native(native_folder)


def test_exporting_again_removes_the_code(native_folder):
    model = fxcache.load(native_folder)
    denoised(model)
    fxcache.export(model, native_folder)
    assert not (native_folder / "native").exists()
