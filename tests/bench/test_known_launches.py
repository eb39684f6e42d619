"""Tests that tests of the gate look up the kernels of unchanged graphs, and of no others."""

from typing import Any

import pytest
import torch
from torch import fx

from bench import known_launches
from bench.known_launches import recalled, recorded
from fxcache.gate.exact import launches, measure
from fxcache.rewrite.variants import Variants
from tests.gate.subjects import small

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list[Any]:
    """The captures for which Inductor would choose kernels."""
    found: list[Any] = []

    def counted(variants: Variants) -> dict[str, int]:
        found.append(variants)
        return {"full": len(found)}

    monkeypatch.setattr(launches, "launches_of", counted)
    monkeypatch.setattr(known_launches, "FOLDER", tmp_path)
    return found


def chosen(found: Variants) -> Any:
    """Return the kernels of a capture as a gate gets them."""
    return vars(measure)["launches_of"](found)


def variants() -> Variants:
    subject = small()
    with torch.no_grad(), subject.fresh() as engines:
        subject.run()
        (engine,) = engines.values()
        (found,) = engine.captures.values()
    return found


def test_kernels_are_chosen_once_for_equal_graphs(asked):
    with recorded():
        assert chosen(variants()) == {"full": 1}
    with recalled():
        assert chosen(variants()) == {"full": 1}
    assert len(asked) == 1


def other_operator(node: fx.Node) -> None:
    node.target = torch.ops.aten.relu.default


def other_dtype(node: fx.Node) -> None:
    node.meta["val"] = node.meta["val"].to(torch.float64)


@pytest.mark.parametrize("change", [other_operator, other_dtype])
def test_a_changed_graph_is_not_known(asked, change):
    with recorded():
        chosen(variants())
    with recalled():
        changed = variants()
        graph = next(iter(changed.named_graphs().values())).module.graph
        change(next(node for node in graph.nodes if node.op == "call_function"))
        assert chosen(changed) == {"full": 2}
        assert chosen(variants()) == {"full": 1}


def test_another_torch_is_not_known(asked, monkeypatch):
    with recorded():
        chosen(variants())
    monkeypatch.setattr(torch, "__version__", f"{torch.__version__}.1")
    with recalled():
        assert chosen(variants()) == {"full": 2}
