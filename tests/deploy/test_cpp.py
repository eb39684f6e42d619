"""Tests the example in C++: it is built, run, and compared with Python."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import fxcache
from tests.deploy.natives import MOST, edit_native, error_of, load_native
from tests.deploy.tampering import edit
from tests.deploy.test_round_trip import STEPS, denoised
from tests.plain import dit_inputs

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "cpp"
BUNDLED = ROOT / "bench" / "models" / "emoji-sd" / "unet"
MISSING = [name for name in ("cmake", "g++") if shutil.which(name) is None]
NO_CUDA = "uses CUDA but I cannot find the CUDA"  # as a build of torch for CUDA says
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not found")


@pytest.fixture(scope="module")
def denoise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built with warnings as errors."""
    build = tmp_path_factory.mktemp("build")
    options = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}", "-DCMAKE_CXX_FLAGS=-Werror"
    for command in (["-S", str(EXAMPLE), "-B", str(build), *options], ["--build", str(build)]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        if NO_CUDA in done.stderr:
            pytest.skip("this torch is a build for CUDA, and CUDA's toolkit is not installed")
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "denoise"


def given(batch: int = 2) -> dict[str, Tensor]:
    """Return the inputs of the run that ``denoised`` makes."""
    inputs = dit_inputs(batch)
    timesteps = torch.linspace(900, 100, STEPS)
    return {"sample": inputs["sample"], "timesteps": timesteps, "argument_2": inputs["text"]}


class Example:
    """Runs the program on an artifact."""

    def __init__(self, program: Path, folder: Path):
        self.program, self.folder = program, folder

    def run(self, artifact: Path, inputs: dict[str, Tensor]) -> subprocess.CompletedProcess[str]:
        save_file(inputs, self.folder / "inputs.safetensors")
        files = (self.folder / name for name in ("inputs.safetensors", "output.safetensors"))
        command = [self.program, artifact, *files]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def latents(self, artifact: Path, inputs: dict[str, Tensor]) -> list[Tensor]:
        done = self.run(artifact, inputs)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"denoised {len(inputs['timesteps'])} steps\n"
        found = load_file(self.folder / "output.safetensors")
        return [found[f"latent_{step}"] for step in range(len(inputs["timesteps"]))]

    def complaint(self, artifact: Path, inputs: dict[str, Tensor]) -> str:
        done = self.run(artifact, inputs)
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        return done.stderr


@pytest.fixture
def example(denoise: Path, tmp_path: Path) -> Example:
    return Example(denoise, tmp_path)


@pytest.mark.parametrize("batch", [2, 5])
def test_results_are_those_of_python(example, compiled, batch):
    found = example.latents(compiled, given(batch))
    assert error_of(found, denoised(fxcache.load(compiled), batch=batch)) < MOST
    native = denoised(load_native(compiled), batch=batch)
    assert error_of(found, native) < 1e-6  # the sampler's own arithmetic is all that differs


def test_no_python_is_linked(denoise):
    linked = subprocess.run(["ldd", denoise], capture_output=True, text=True, check=True).stdout
    assert "libtorch_cpu" in linked
    assert "python" not in linked.replace("site-packages", "").replace("/lib/python", "")


def test_code_is_what_was_checked_even_if_the_file_changes_afterwards(
    example, native_folder, compiled, monkeypatch
):
    """The file can be read only once: what reads it again waits until the test fails."""
    package = native_folder / "native" / "graphs.pt2"
    content = package.read_bytes()
    package.unlink()
    os.mkfifo(package)
    Thread(target=package.write_bytes, args=(content,), daemon=True).start()
    temporary = example.folder / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    expected = example.latents(compiled, given())
    assert all(map(torch.equal, example.latents(native_folder, given()), expected))
    assert not list(temporary.glob("fxcache-*"))


BAD_INPUTS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "float64": (lambda i: i.update(sample=i["sample"].double()), "the dtype is Double, not Float"),
    "too small": (
        lambda i: i.update(sample=i["sample"][:, :8].clone()),
        "the shape is [2, 8, 4], not [2, 16, 4]",
    ),
    "batches": (lambda i: i.update(argument_2=i["argument_2"][:1].clone()), ", not [2, "),
    "batch 1": (
        lambda i: i.update({n: i[n][:1].clone() for n in ("sample", "argument_2")}),
        "out of its bounds",
    ),
    "no text": (lambda i: i.pop("argument_2"), "an argument is missing\n  where: text"),
    "one more": (lambda i: i.update(argument_3=torch.zeros(2)), "too many arguments"),
    "steps": (lambda i: i.update(timesteps=i["timesteps"][:3].clone()), "runs of this length"),
}


@pytest.mark.parametrize(("change", "error"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_other_inputs_are_refused(example, compiled, change, error):
    inputs = given()
    change(inputs)
    assert error in example.complaint(compiled, inputs)


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def first_input(manifest: Any) -> Any:
    return manifest["graphs"]["full_0"]["inputs"][0]


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights": (lambda f: flip_a_byte(f / "weights-00000.safetensors"), "another content"),
    "code": (lambda f: flip_a_byte(f / "native" / "graphs.pt2"), "another content"),
    "artifact": (
        lambda f: edit(f, "manifest.json", lambda m: m.update(more=1)),
        "another artifact",
    ),
    "JSON": (lambda f: (f / "native" / "manifest.json").write_text('{"a": [1,}'), "is not JSON"),
    "nested": (lambda f: (f / "native" / "manifest.json").write_text("[" * 99), "too deeply"),
    "torch": (lambda f: edit_native(f, lambda m: m["target"].update(torch="2.0.0")), "torch 2.0.0"),
    "CPU": (lambda f: edit_native(f, lambda m: m["target"].update(features=["z"])), "CPU lacks"),
    "constants": (
        lambda f: edit_native(f, lambda m: m["graphs"]["full_0"]["weights"].popitem()),
        "a weight that the manifest lacks",
    ),
    "shape": (
        lambda f: edit_native(
            f, lambda m: m["graphs"]["full_0"]["weights"]["w_head_bias"].update(shape=[9])
        ),
        "another dtype, shape or stride\n  where: head.bias",
    ),
    "size": (
        lambda f: edit_native(f, lambda m: first_input(m).update(shape=["x", 16, 4])),
        "unknown size",
    ),
    "order": (
        lambda f: edit_native(f, lambda m: first_input(m).update(order=[0, 2, 1])),
        "another order, or gaps\n  where: sample",
    ),
    "graph": (
        lambda f: edit_native(f, lambda m: m["runs"][0]["steps"].__setitem__(1, "other")),
        "unknown graph",
    ),
}


@pytest.mark.sweep(6)
@pytest.mark.parametrize(("change", "error"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_artifacts_are_refused(example, native_folder, change, error):
    change(native_folder)
    assert error in example.complaint(native_folder, given())


def test_conditions_on_sizes_are_checked(example, native_folder):
    """Every operator of the grammar, in one condition that holds for 2 and 5 images, not for 3."""

    def conditions(manifest: Any) -> None:
        (size,) = manifest["programs"][0]["sizes"]
        low = ["<=", ["min", size, ["+", 1, 1]], ["*", 1, ["max", 2, 1]]]
        parts = ["and", [">", size, 1], [">=", size, 2], ["<", size, 9], ["!=", size, 3], low]
        odd = ["or", ["==", ["mod", size, 3], 2], ["not", ["==", ["floordiv", -7, 2], -4]]]
        manifest["programs"][0]["conditions"] = [parts, odd]

    edit_native(native_folder, conditions)
    for batch in (2, 5):
        example.latents(native_folder, given(batch))
    assert "a condition on the sizes does not hold" in example.complaint(native_folder, given(3))
    assert "a condition on the sizes does not hold" in example.complaint(native_folder, given(4))


@pytest.mark.slow
@torch.no_grad()
def test_twenty_steps_of_the_bundled_unet(example, tmp_path):
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_pretrained(BUNDLED).eval()
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "sample": torch.randn(2, 8, 8, 8, generator=generator),
        "timesteps": torch.linspace(950, 0, 20).long(),
        "argument_2": torch.randn(2, 16, 128, generator=generator),
    }

    def loop(model: Any) -> list[Tensor]:
        latent, latents = inputs["sample"], []
        with fxcache.session(model, num_steps=20):
            for t in inputs["timesteps"]:
                (prediction,) = model(latent, t, inputs["argument_2"], return_dict=False)
                latent = latent - 0.1 * prediction
                latents.append(latent)
        return latents

    loop(fxcache.optimize(unet))
    folder = fxcache.export(unet, tmp_path / "artifact")
    expected = loop(fxcache.load(folder))
    fxcache.compile_artifact(folder, 20)
    # Twenty steps add up their errors; 4e-6 was measured.
    assert error_of(loop(load_native(folder)), expected) < 1e-5
    assert error_of(example.latents(folder, inputs), expected) < 1e-5
