"""Tests that an artifact is only data: tampered folders are refused, and nothing in them runs."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load, save

import fxcache
from tests.deploy.tampering import GRAPH, edit, refused, replace
from tests.deploy.test_round_trip import denoised
from tests.plain import dit

pytestmark = pytest.mark.usefixtures("shared_captures")


def test_an_untouched_copy_loads(folder):
    assert torch.equal(denoised(fxcache.load(folder))[0], denoised(dit(2))[0])


def test_a_changed_byte_is_noticed(folder):
    for name in (GRAPH, "weights-00000.safetensors", "config.json"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before[:-1] + b" ")
        refused(folder, "another content than the manifest says")
        (folder / name).write_bytes(before)


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "a/../b.json", "graphs/x.py"])
def test_no_file_outside_the_folder_is_read(folder, name):
    (folder.parent / "secret.json").write_text("{}")
    edit(folder, "manifest.json", lambda m: m["files"].update({name: m["files"][GRAPH]}))
    refused(folder, "is not allowed")


def test_links_are_not_followed(folder):
    (folder / GRAPH).rename(folder.parent / "graph.json")
    (folder / GRAPH).symlink_to(folder.parent / "graph.json")
    refused(folder, "cannot be read")
    (folder / GRAPH).unlink()
    (folder / "graphs").rmdir()
    (folder.parent / "elsewhere").mkdir()
    shutil.copy(folder.parent / "graph.json", folder.parent / "elsewhere" / "0.json")
    (folder / "graphs").symlink_to(folder.parent / "elsewhere")
    refused(folder, "is a link")


def test_a_pipe_is_not_read(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    refused(folder, "is no file")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m.update(fxcache_artifact=1), id="format"),
        pytest.param(lambda m: m.pop("weights"), id="missing"),
        pytest.param(lambda m: m.update(hooks="x"), id="unknown"),
        pytest.param(lambda m: m["model"].update(name="a b"), id="class name"),
        pytest.param(lambda m: m["model"].update(parameters=[1]), id="parameters"),
        pytest.param(lambda m: m["settings"]["policy"].update(policy="os:system"), id="policy"),
        pytest.param(lambda m: m["settings"]["policy"].update(interval=-1), id="interval"),
        pytest.param(lambda m: m["settings"]["cache"].update(dtype="load"), id="cache dtype"),
        pytest.param(lambda m: m["settings"].update(cut=[["a"]]), id="cut"),
        pytest.param(lambda m: m["settings"].update(run_lengths=[["9", 2, 3]]), id="lengths"),
        pytest.param(lambda m: m["files"]["config.json"].update(size=2**40), id="size"),
        pytest.param(
            lambda m: m["weights"].update({"a." * 3000 + "b": m["weights"]["head.bias"]}), id="deep"
        ),
        pytest.param(lambda m: m.update(programs=[]), id="no programs"),
        pytest.param(lambda m: m.update(programs=["config.json"]), id="another file"),
        pytest.param(lambda m: m["weights"]["head.bias"].update(shape=[5]), id="shape"),
        pytest.param(lambda m: m["weights"]["head.bias"].update(key="nothing"), id="key"),
        pytest.param(lambda m: m["weights"]["head.bias"].update(dtype="float16"), id="dtype"),
        pytest.param(lambda m: m["weights"]["head.bias"].update(kind="code"), id="kind"),
        pytest.param(
            lambda m: m["weights"].update({"forward": m["weights"]["head.bias"]}), id="method"
        ),
        pytest.param(
            lambda m: m["weights"].update({"__class__.x": m["weights"]["head.bias"]}), id="class"
        ),
    ],
)
def test_malformed_manifests_are_refused(folder, change):
    edit(folder, "manifest.json", change)
    refused(folder, "FXC011")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**6, b"NaN", b"null", b"\xff", b'"x"'])
def test_a_manifest_that_is_no_json_object_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    refused(folder, "manifest.json")


def test_weights_that_are_no_tensors_are_refused(folder):
    name = "weights-00000.safetensors"
    before = (folder / name).read_bytes()
    for content in (b"", b"\xff" * 64, before[:100], b"\x80\x04" + before):
        replace(folder, name, content)
        refused(folder, "holds no tensors")
    tensors = load(before)
    replace(folder, name, save(tensors | {"head.bias": torch.zeros(9)}))
    refused(folder, "has the shape")


def test_a_missing_folder_is_named(tmp_path):
    refused(tmp_path / "nothing", "manifest.json cannot be read")


def test_no_code_of_the_model_is_imported(exported, tmp_path):
    """In a process in which the libraries of models cannot be imported."""
    script = """
        import sys
        for name in ("diffusers", "transformers", "accelerate", "peft", "triton", "tests", "bench"):
            sys.modules[name] = None
        import torch, fxcache
        torch.set_num_threads(1)  # the number of threads changes the order of summation
        model = fxcache.load(sys.argv[1])
        inputs = torch.load(sys.argv[2], weights_only=True)
        with torch.no_grad(), fxcache.session(model):
            steps = [model(inputs["sample"], t, inputs["text"]) for t in inputs["timesteps"]]
        torch.save(steps, sys.argv[3])
        print([run.refreshes for run in fxcache.report(model).runs])
    """
    inputs = {
        "sample": torch.randn(2, 16, 4),
        "text": torch.randn(2, 5, 16),
        "timesteps": torch.linspace(900, 100, 5),
    }
    model = fxcache.optimize(dit(2), fxcache.Uniform(3))
    with torch.no_grad(), fxcache.session(model):
        expected = [model(inputs["sample"], t, inputs["text"]) for t in inputs["timesteps"]]
    files = [tmp_path / name for name in ("inputs.pt", "steps.pt")]
    torch.save(inputs, files[0])
    command = [sys.executable, "-c", textwrap.dedent(script), str(exported), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[0, 3]" in done.stdout
    found = torch.load(files[1], weights_only=True)
    assert all(map(torch.equal, found, expected))
