"""Tests gates of models that are optimised in other ways than by default."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from fxcache.gate.config import GateConfig
from fxcache.gate.exact import measure as gate
from fxcache.gate.exact.measure import measure
from fxcache.gate.gate import check, update
from fxcache.gate.loop import subject_of
from fxcache.gate.subject import Subject
from tests import tiny
from tests.gate.subjects import EXACT, STEPS, small
from tests.plain import dit_inputs

pytestmark = pytest.mark.usefixtures("clean_dynamo", "shared_captures")
TEACACHE = fxcache.TeaCache(0.3, coefficients=(1.0, 0.0))
CASES: dict[str, tuple[dict[str, Any], int, set[str]]] = {
    "prefix": (
        {"policy": TEACACHE, "hoist": None},
        3,
        {"prefix", "full after the prefix", "cached_skip after the prefix"},
    ),
    "table": ({"hoist": "table"}, 4, {"full", "cached_skip", "prologue", "timestep_part"}),
    "forecast": (
        {"forecast": fxcache.Hermite(2), "hoist": None},
        2,
        {"full", "cached_skip"},
    ),
}


@pytest.fixture
def kernels_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the choice of kernels by Inductor, which takes most of the time."""
    monkeypatch.setattr(gate, "launches_of", lambda _: {})


@pytest.mark.sweep(1)
@pytest.mark.parametrize(("options", "graphs", "names"), CASES.values(), ids=CASES)
def test_every_graph_is_counted(options, graphs, names):
    counts = measure(small(depth=2, **options)).counts
    capture = counts["denoisers"]["DiT"]["captures"][0]
    assert set(capture["graphs"]) == set(capture["inductor"]) == names
    assert counts["compilation"]["graphs"] == graphs
    assert counts["compilation"]["recompilations"] == 0
    assert counts["quality"]["later_run"]["psnr_db"] > 40


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.outer(torch.tanh(self.inner(x)))
        return x + added


class Unconditional(nn.Module):
    """Three blocks without a prompt: nothing can be hoisted, and the prologue is empty."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, latent: Tensor, timestep: Tensor) -> Tensor:
        for block in self.blocks:
            latent = block(latent)
        return latent * timestep


@pytest.mark.sweep(1)
@pytest.mark.parametrize("compiled", ["", "module.compile", "torch.compile"])
def test_values_that_were_written_are_those_expected(compiled, tmp_path):
    """Policies hold tuples, which JSON reads as lists. The model may be compiled."""
    model: Any = fxcache.optimize(Unconditional().eval(), fxcache.Explicit(steps=(0, 3)))
    if compiled == "module.compile":
        model.compile(backend="eager", fullgraph=True)
    elif compiled:
        model = torch.compile(model, backend="eager")
    inputs = {"latent": torch.ones(2, 8), "timestep": torch.tensor(0.5)}
    subject = subject_of(model, inputs, steps=6)
    config = GateConfig(tiers=("exact", "advisory"), rounds=6)
    update(subject, "model", tmp_path / "expected.json", config, "a test")
    outcome = check(subject, "model", tmp_path / "expected.json", config)
    assert outcome.passed, outcome.findings
    assert fxcache.report(model).runs == [], "the gate uses engines of its own"
    if compiled == "module.compile":
        assert vars(model)["_compiled_call_impl"] is not None


@pytest.mark.usefixtures("kernels_not_chosen")
def test_all_runs_are_in_one_thread(tmp_path):
    threads = []

    def counting(model: Any) -> Tensor:
        threads.append(torch.get_num_threads())
        inputs = dit_inputs()
        latent = inputs.pop("sample")
        for t in torch.linspace(900, 100, STEPS):
            latent = latent - model(latent, t, **inputs) / STEPS
        return latent

    torch.set_num_threads(2)
    try:
        check(small(counting), "model", tmp_path / "none.json", EXACT)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(threads) == {1}


@pytest.mark.usefixtures("kernels_not_chosen")
def test_the_engines_stay_as_they_are(tmp_path):
    subject = small()
    (before,) = subject.engines.values()
    check(subject, "model", tmp_path / "none.json", EXACT)
    assert subject.engines["DiT"] is before
    assert not before.runs
    assert "_compiled_call_impl" not in vars(subject.denoisers["DiT"])


def test_a_run_has_steps():
    with pytest.raises(fxcache.ConfigError, match="steps=0"):
        subject_of(fxcache.optimize(Unconditional().eval()), {}, steps=0)


def test_an_update_has_a_reason(tmp_path):
    with pytest.raises(fxcache.ConfigError, match="needs a reason"):
        update(small(), "model", tmp_path / "expected.json", GateConfig(), " ")


@pytest.mark.usefixtures("kernels_not_chosen")
def test_a_pipeline_of_ones_own():
    pipe = tiny.pipeline(unet=tiny.small_unet())
    pipe.set_progress_bar_config(disable=True)
    fxcache.optimize(pipe, fxcache.Uniform(3), hoist=None)

    def images() -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipe(tiny.PROMPT, 32, 32, num_inference_steps=6, generator=generator).images

    counts = measure(Subject({"unet": pipe.unet}, images, pipe)).counts
    (run,) = counts["denoisers"]["unet"]["later_run"]
    assert run["refreshes"] == [0, 3]
    assert set(counts["quality"]["later_run"]) == {"psnr_db", "ssim"}
    assert fxcache.report(pipe)["unet"].runs == [], "the gate uses engines of its own"
