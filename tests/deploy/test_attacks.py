"""Tests that an artifact is only data: tampered folders are refused, and nothing in them runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import fxcache
from tests.deploy.test_round_trip import denoised
from tests.plain import dit

pytestmark = pytest.mark.usefixtures("shared_captures")

Edit = Callable[[Any], None]
GRAPH = "graphs/0.json"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = fxcache.optimize(dit(2), fxcache.Uniform(3))
    denoised(model)
    return fxcache.export(model, tmp_path_factory.mktemp("exported") / "artifact")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "artifact"))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Write a file, and its size and hash to the manifest, as an attacker would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"size": len(content), "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit(folder: Path, name: str, change: Edit) -> None:
    """Change the JSON in a file with ``change``."""
    data = json.loads((folder / name).read_bytes())
    change(data)
    if name == "manifest.json":
        (folder / name).write_text(json.dumps(data))
    else:
        replace(folder, name, json.dumps(data).encode())


def refused(folder: Path, match: str) -> None:
    with pytest.raises(fxcache.ArtifactError, match=match):
        fxcache.load(folder)


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


def call_of(graph: Any) -> list[Any]:
    """Return the first node of ``graph`` that calls an operator."""
    return next(node for node in graph["graph"]["nodes"] if node[0] == "call")


def operator(name: str, args: list[Any]) -> Edit:
    """Return a change that makes the first node call another operator."""

    def change(graph: Any) -> None:
        call_of(graph)[2:5] = [name, args, {}]

    return change


@pytest.mark.parametrize(
    ("name", "args", "match"),
    [
        ("aten.from_file.default", ["/etc/passwd", None, 4], "is not allowed"),
        ("aten.add_.Tensor", [{"node": 0}, 1], "is not allowed"),
        ("aten.add.out", [{"node": 0}, {"node": 0}], "writes to its arguments"),
        ("aten.manual_seed.default", [123], "is not allowed"),
        ("aten.set_grad_enabled.default", [True], "is not allowed"),
        ("aten.center.default", ["a", 2**62], "is not allowed"),
        ("aten._stack.default", [[]], "is not allowed"),
        ("aten.mul.left_t", [[0], 2 * 10**8], "is not allowed"),
        ("aten.add.str", ["a", "b"], "is not allowed"),
        ("aten.add.\ud800", [{"node": 0}, 1], "is not allowed"),
        ("aten.zeros.default", [[2], 2**31], "is no dtype"),
        ("aten.clone.default", [{"node": 0}, 77], "more than|is no dtype|argument"),
        ("aten.unbind.int", [{"node": 0}, 10**9], "IndexError"),
        ("aten.chunk.default", [{"node": 0}, 10**7], "more than"),
        ("operator.mul", [[0], 2 * 10**8], "something else than sizes"),
        ("operator.mod", ["%0500000000d", 1], "something else than sizes"),
        ("os.system", ["touch owned"], "is not allowed"),
        ("operator.attrgetter", ["__class__"], "is not allowed"),
        ("builtins.eval", ["1"], "is not allowed"),
        ("aten.__class__.mro", [], "is not allowed"),
        ("aten.add.__call__", [{"node": 0}, 1], "has no operator"),
        ("prims.device_put.default", [{"node": 0}, {"device": "cpu"}], "is not allowed"),
        ("higher_order.run_const_graph", [], "is not allowed"),
        ("aten.zeros.default", [[2**40, 2**20]], "larger than|RuntimeError"),
        ("aten.add.Tensor", [{"node": 999}, 1], "there is no node"),
        ("aten.add.Tensor", [{"lambda": "1"}, 1], "unknown value"),
        ("aten.add.Tensor", [{"dtype": "load"}, 1], "unknown dtype"),
        ("aten.add.Tensor", [{"device": "cuda"}, 1], "unknown device"),
    ],
)
def test_only_functional_operators_of_aten_run(folder, name, args, match):
    edit(folder, GRAPH, operator(name, args))
    refused(folder, match)


def test_no_keyword_becomes_code(folder):
    """fx writes keywords into the source of a graph, and a region's source is run at once."""
    owned = folder.parent / "owned"
    key = f"alpha=1)\r__import__('pathlib').Path({str(owned)!r}).touch()\rdef f():\r    dict(x"

    def plant(keyword: str) -> Edit:
        call = ["call", "b", "aten.add.Tensor", [{"node": 0}, 1], {keyword: 1}, 0]
        output: list[Any] = ["output", "output", None, [{"tuple": [{"node": 1}]}], {}, 0]
        region = {"modules": [[]], "nodes": [["input", "a", None, [], {}, 0], call, output]}
        node = ["region", "region_0", region, [], {}, 0]
        return lambda graph: graph["graph"]["nodes"].insert(-1, node)

    for keyword, match in ((key, "no names"), ("class", "no names"), ("beta", "no argument")):
        edit(folder, GRAPH, plant(keyword))
        refused(folder, match)
        edit(folder, GRAPH, lambda graph: graph["graph"]["nodes"].pop(-2))
    assert not owned.exists()
    edit(folder, GRAPH, plant("alpha"))
    fxcache.load(folder)


def test_regions_inside_regions_do_not_run_for_hours(folder):
    inner: Any = [["input", "a", None, [], {}, 0]]
    inner.append(["output", "output", None, [{"tuple": [{"node": 0}]}], {}, 0])
    name = "higher_order.wrap_with_set_grad_enabled"
    for _ in range(6):
        nodes: Any = [["input", "a", None, [], {}, 0]]
        nodes.append(["region", "inside", {"modules": [[]], "nodes": inner}, [], {}, 0])
        calls = [f"c{i}" for i in range(10)]
        nodes += [["call", c, name, [False, {"node": 1}, {"node": 0}], {}, 0] for c in calls]
        nodes.append(["output", "output", None, [{"tuple": [{"node": 0}]}], {}, 0])
        inner = nodes

    def plant(graph: Any) -> None:
        nodes = graph["graph"]["nodes"]
        end = len(nodes) - 1
        nodes.insert(-1, ["region", "deep", {"modules": [[]], "nodes": inner}, [], {}, 0])
        call = ["call", "deepest", name, [False, {"node": end}, {"node": 0}], {}, 0]
        nodes.insert(-1, call)

    edit(folder, GRAPH, plant)
    refused(folder, "regions run too often")


NESTED: Any = 1
for _ in range(100):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda g: g["graph"]["nodes"].pop(), id="no output"),
        pytest.param(lambda g: g["graph"]["nodes"].append(["call"]), id="half a node"),
        pytest.param(lambda g: call_of(g).__setitem__(3, NESTED), id="nested"),
        pytest.param(lambda g: call_of(g).__setitem__(1, "import os"), id="name"),
        pytest.param(lambda g: call_of(g).__setitem__(1, g["graph"]["nodes"][0][1]), id="twice"),
        pytest.param(lambda g: call_of(g).__setitem__(5, 10**6), id="modules"),
        pytest.param(lambda g: g["inputs"].pop(), id="inputs"),
        pytest.param(lambda g: g["inputs"][0].update(shape=["s0", 16, 4]), id="symbol"),
        pytest.param(lambda g: g["inputs"][0].update(order=[0, 0, 1]), id="order"),
        pytest.param(lambda g: g["inputs"][0].update(extra=1), id="unknown field"),
        pytest.param(lambda g: g.update(conditions=["__import__('os')"]), id="code"),
        pytest.param(lambda g: g.update(conditions=[["**", 9, 9]]), id="power"),
        pytest.param(lambda g: g["inputs"][0].update(shape=[2**40] * 3), id="too large"),
        pytest.param(lambda g: g["inputs"][0].update(dtype="quint8"), id="quantised"),
        pytest.param(lambda g: g.update(sizes={"\ud800": {}}), id="name of a size"),
        pytest.param(lambda g: g.update(constants={"nothing": "0" * 64}), id="constant"),
        pytest.param(lambda g: g.update(constants={"text": 1}), id="digest"),
        pytest.param(lambda g: g.update(call=["\ud800"]), id="call"),
        pytest.param(lambda g: g.update(result={"kind": "record"}), id="result"),
        pytest.param(lambda g: g.update(result=["leaf"]), id="result is no object"),
    ],
)
def test_malformed_graphs_are_refused(folder, change):
    edit(folder, GRAPH, change)
    refused(folder, r"graphs/0.json")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m.update(fxcache_artifact=2), id="format"),
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
