"""Tests the comparison with other caches on a device, with small models on the CPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.gpu import peers
from bench.gpu.items import CheckError
from bench.gpu.setup import DRY_RUN, GPU
from bench.gpu_figures import peers_table
from bench.peers import lineup, models, ours, peer_diffusers
from bench.peers.contender import Contender
from bench.peers.subject import Ask, Live, sample
from tests.bench.dry_run import no_block


def test_a_peer_is_compared_with_fxcache_by_the_same_rule():
    rows = peers.eager(DRY_RUN, "FLUX-shaped", [peer_diffusers.MAGCACHE_STEPS])["rows"]
    found = rows["diffusers, MagCache, given steps"]
    assert found["agreement"]["twin"] == "fxcache, automatic cut"
    assert found["agreement"]["equal"]
    assert found["refreshed"] == [0, 3, 6]
    assert 0 < found["reuse_ms"] < found["refresh_ms"]


@pytest.mark.slow
@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("way", DRY_RUN.compiled)
@pytest.mark.parametrize(
    "contender", [ours.AUTOMATIC, peer_diffusers.FIRST_BLOCK], ids=lambda c: c.name
)
def test_contenders_are_compiled(contender, way):
    rows = peers.compiled(DRY_RUN, "FLUX-shaped", contender, way)["rows"]
    found = rows[contender.name]
    assert found["speedup_low"] <= found["speedup"] <= found["speedup_high"]


def test_every_contender_is_measured_once_in_eager_mode():
    items = list(peers.items(replace(GPU, device="meta")))
    names = [item.name for item in items]
    assert len(names) == len(set(names)) > 40
    assert "U-Net, graphs, DeepCache" in names
    assert names[:3] == ["FLUX-shaped, eager", "U-Net, eager", "Wan-shaped, eager"]
    for model in GPU.peers:
        calls: Any = [item.measure for item in items if item.name.startswith(f"{model}, eager")]
        measured = [contender for call in calls for contender in call.args[2]]
        every = [c for c in lineup.SUBJECTS[model][1] if c is not ours.PLAIN]
        assert sorted(c.name for c in measured) == sorted(c.name for c in every)
        assert all(len(call.args[2]) <= peers.TOGETHER for call in calls)


def test_a_missing_package_is_told():
    missing = Contender("missing", "no-such-package", no_block)
    with pytest.raises(peers.NotInstalledError, match="no-such-package is not installed"):
        peers.eager(DRY_RUN, "FLUX-shaped", [ours.AUTOMATIC, missing])


def test_without_diffusers_one_item_tells_why(monkeypatch):
    def missing(name: str) -> Any:
        raise ImportError(f"no module for {name}")

    monkeypatch.setattr(peers, "import_module", missing)
    (item,) = peers.items(DRY_RUN)
    with pytest.raises(ImportError, match=r"no module for bench\.peers\.lineup"):
        item.measure()


def test_an_error_of_a_peer_is_its_result_and_one_of_fxcache_is_not():
    failed = {"package": "diffusers", "error": "ValueError: no such block"}
    assert peers.checked({"a peer": failed}) == {"rows": {"a peer": failed}}
    refused = {"package": "fxcache", "error": "CutError: [FXC006] an attention has two outputs"}
    assert peers.checked({"ours": refused})
    with pytest.raises(CheckError, match="ours works"):
        peers.checked({"a peer": failed, "ours": {**failed, "package": "fxcache"}})


@pytest.mark.usefixtures("clean_dynamo")
def test_a_contender_that_fails_is_measured_as_an_error(monkeypatch):
    broken = Contender("broken", "numpy", lambda *_: 1 / 0)  # type: ignore[arg-type]
    monkeypatch.setitem(lineup.SUBJECTS, "U-Net", (models.unet, (broken,)))
    for found in (
        peers.eager(DRY_RUN, "U-Net", [broken]),
        peers.compiled(DRY_RUN, "U-Net", broken, "graphs"),
    ):
        assert found["rows"]["broken"]["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("name", GPU.peers)
def test_full_sizes_fit_together_and_keep_to_one_device(name, monkeypatch):
    """A tensor that a model makes on the CPU would fail beside tensors on meta."""
    monkeypatch.setattr(models, "seeded", lambda build: build().eval())  # which reads weights
    subject = peers.subject_of(replace(GPU, device="meta"), name)
    found = sample(subject, Live(subject.model), Ask(steps=2))
    assert (found.device.type, found.dtype) == ("meta", torch.bfloat16)


def test_the_table_has_speedups_and_errors():
    row = {"refresh_ms": 12.0, "reuse_ms": None, "waits": 3}
    row |= {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1}
    items: dict[str, dict[str, Any]] = {
        "a model, eager": {"result": {"rows": {"one": row, "two": {"error": "ValueError: no"}}}},
        "a model, graphs": {"error": "Traceback …\nNotInstalledError: x is not installed\n"},
    }
    one, two, three = peers_table(items).splitlines()[2:]
    assert "a model, eager: one" in one
    assert "2.00× (1.90–2.10)" in one
    assert "12 ms" in one
    assert "`ValueError: no`" in two
    assert "`NotInstalledError: x is not installed`" in three
