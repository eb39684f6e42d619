"""Tests that each kind of regression fails the gate by name."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx

import fxcache
from fxcache.gate.exact import launches, measure, sizes
from fxcache.gate.gate import Outcome
from fxcache.rewrite.factory import Rewritten, VariantFactory, VariantKey
from fxcache.rewrite.variants import Variants
from fxcache.runtime import engine
from fxcache.runtime.engine import Engine
from tests.gate.subjects import STEPS, expect, gate, small, texts
from tests.plain import dit_inputs

pytestmark = pytest.mark.usefixtures("clean_dynamo", "shared_captures")

CAPTURE = "denoisers/DiT/captures/0"
REUSE = f"{CAPTURE}/graphs/cached_skip"
PACKAGE = Path(fxcache.__file__).parent


@pytest.fixture(autouse=True)
def not_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Inductor choose the kernels of the expected graphs alone, and in its own test."""
    monkeypatch.setattr(measure, "launches_of", known_launches)


LAUNCHES: dict[str, Any] = {}


def known_launches(variants: Variants) -> Any:
    """Return the launches of graphs with the code of expected ones; nothing for other graphs."""
    return LAUNCHES.get(code_of(variants), {})


def chosen_launches(variants: Variants) -> Any:
    """Let Inductor choose, and keep the result."""
    found = LAUNCHES[code_of(variants)] = launches.launches_of(variants)
    return found


def code_of(variants: Variants) -> str:
    return "".join(v.module.code for v in variants.named_graphs().values())


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gate") / "expected.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "launches_of", chosen_launches)
        expect(file, small())
    return file


def failed(outcome: Outcome, *entries: str) -> dict[str, str]:
    """Check that the gate fails at least at ``entries``. Return all texts."""
    found = texts(outcome)
    assert not outcome.passed
    assert set(entries) <= set(found), found
    return found


def test_without_a_change_it_passes(expected):
    outcome = gate(expected, small())
    assert texts(outcome) == {}
    assert outcome.counted > 80


def test_an_operator_added_to_the_reuse_variant(expected, monkeypatch):
    original = VariantFactory.variant

    def with_one_more(self: VariantFactory, key: VariantKey, name: str) -> Rewritten:
        made = original(self, key, name)
        if key.reused:
            add_operator(made.draft.graph)
        return made

    monkeypatch.setattr(VariantFactory, "variant", with_one_more)
    found = failed(gate(expected, small()), f"{REUSE}/nodes", f"{REUSE}/bytes")
    assert found[f"{REUSE}/operators/aten.relu.default"].endswith("0 → 1")
    assert "aten.relu.default 0 → 1" in found[f"{REUSE}/nodes"]
    assert not any("graphs/full" in entry for entry in found)


def add_operator(graph: fx.Graph) -> None:
    """Add an activation to the first result, which is the output of the model."""
    output: Any = graph.output_node()
    first, *others = output.args[0]
    with graph.inserting_before(output):
        changed = graph.call_function(torch.ops.aten.relu.default, (first,))
        changed.meta = dict(first.meta)
    output.args = ((changed, *others),)


def test_hoisting_switched_off(expected):
    outcome = gate(expected, small(hoist=None))
    found = failed(outcome, f"{CAPTURE}/hoisted", f"{CAPTURE}/graphs/full/flops")
    assert found[f"{CAPTURE}/hoisted"].endswith("per_run → nothing")
    assert "aten.linear.default 21 → 24" in found[f"{CAPTURE}/graphs/full/flops"]
    assert "improvement" not in found[f"{CAPTURE}/hoisted_weight_bytes"]


@pytest.fixture
def deterministic_algorithms() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic_algorithms")
def test_a_forced_recompilation(expected, monkeypatch):
    """A global setting that alternates between calls makes guards fail."""
    original = Engine._prepare

    def toggling(self: Engine, step: Any, module: Any) -> bool:
        ready = original(self, step, module)
        torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
        return ready

    monkeypatch.setattr(Engine, "_prepare", toggling)
    found = failed(gate(expected, small()), "compilation/graphs", "compilation/recompilations")
    reason = "compilation/graphs: 2 → 4 (+100.0%): GLOBAL_STATE changed: deterministic_algorithms"
    assert found["compilation/graphs"] == reason


def test_another_batch_size_is_another_capture(expected):
    def two_sizes(model: Any) -> Tensor:
        results = []
        for batch in (2, 3):
            inputs = dit_inputs(batch)
            latent = inputs.pop("sample")
            for t in torch.linspace(900, 100, STEPS):
                latent = latent - model(latent, t, **inputs) / STEPS
            results.append(latent)
        return torch.cat(results)

    found = failed(gate(expected, small(two_sizes)), "denoisers/DiT/captures/1")
    assert "2 → 4" in found["compilation/graphs"]


def test_a_cache_doubled(expected):
    """A forecast of order 1 stores a value and a difference."""
    outcome = gate(expected, small(forecast=fxcache.Taylor(1)))
    found = failed(outcome, "denoisers/DiT/cached_bytes")
    assert found["denoisers/DiT/cached_bytes"].endswith("2,048 → 4,096 (+100.0%)")


def test_an_extra_read_by_the_host(expected, monkeypatch):
    original = Engine._prepare

    def reading(self: Engine, step: Any, module: Any) -> None:
        step.call.latent.sum().item()
        original(self, step, module)

    monkeypatch.setattr(Engine, "_prepare", reading)
    found = failed(gate(expected, small()))
    assert f"0 → {STEPS}" in found["host_reads/aten._local_scalar_dense.default"]


def test_a_slower_choice_of_kernels(expected, monkeypatch):
    monkeypatch.setattr(measure, "launches_of", launches.launches_of)
    with torch._inductor.config.patch(max_fusion_size=1):
        found = failed(gate(expected, small()))
    text = found[f"{CAPTURE}/inductor/full/launches"]
    assert "(+" in text


def test_a_refresh_too_many(expected):
    with one_more_refresh():
        found = failed(gate(expected, small()), "denoisers/DiT/later_run/0/refreshes")
    assert "new: [2]" in found["denoisers/DiT/later_run/0/refreshes"]


@contextmanager
def one_more_refresh() -> Iterator[None]:
    original = fxcache.ProtectedEnds.decide

    def deciding(self: Any, step: fxcache.Step) -> fxcache.Decision:
        return fxcache.Decision(True, "planted") if step.index == 2 else original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fxcache.ProtectedEnds, "decide", deciding)
        yield


def test_a_picture_that_changed(expected, monkeypatch):
    original = vars(engine)["returned"]

    def scaled(call: Any, outputs: list[Tensor], program: Any) -> Any:
        return original(call, [1.01 * output for output in outputs], program)

    monkeypatch.setattr(engine, "returned", scaled)
    found = failed(gate(expected, small()), "quality/later_run/psnr_db")
    assert set(found) == {"quality/first_run/psnr_db", "quality/later_run/psnr_db"}
    assert "(-" in found["quality/later_run/psnr_db"]


def test_an_import_that_became_heavy(expected, tmp_path, monkeypatch):
    folder = tmp_path / "fxcache"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    first = folder / "__init__.py"
    first.write_text(first.read_text() + "\nimport sqlite3, PIL.Image\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sizes.imports.cache_clear()
    found = failed(gate(expected, small()), "imports/PIL")
    sizes.imports.cache_clear()
    assert "0 → " in found["imports/PIL"]


def test_a_baseline_that_is_missing(tmp_path):
    outcome = gate(tmp_path / "none.json", small())
    assert not outcome.passed
    (finding,) = outcome.findings
    assert finding.message.startswith("nothing is expected of this case yet")


def test_an_improvement_asks_for_an_update(expected):
    file = expected.with_name("worse.json")
    expect(file, small(hoist=None))
    found = failed(gate(file, small()))
    text = found[f"{CAPTURE}/graphs/full/flops"]
    assert text.endswith(", an improvement: aten.linear.default 24 → 21")
