"""Tests that a graph in an artifact is only data: whatever else it names is refused."""

from typing import Any

import pytest

import fxcache
from tests.deploy.tampering import GRAPH, Edit, edit, refused

pytestmark = pytest.mark.usefixtures("shared_captures")


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
