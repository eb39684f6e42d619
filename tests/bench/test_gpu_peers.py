"""Tests the comparison with other caches on a device, with small models on the CPU."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.gpu import peers
from bench.gpu.items import CheckError
from bench.gpu.setup import DRY_RUN, GPU
from bench.gpu_figures import peers_table
from bench.peers import models, ours, peer_diffusers
from bench.peers.contender import Contender
from bench.peers.subject import Ask, Live, sample


def no_block(*_: Any) -> Any:
    return nullcontext(Live(None))


def test_a_peer_is_compared_with_fxcache_by_the_same_rule():
    found = peers.measure(DRY_RUN, "FLUX-shaped", peer_diffusers.MAGCACHE_STEPS, "eager")
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
    found = peers.measure(DRY_RUN, "FLUX-shaped", contender, way)
    assert found["speedup_low"] <= found["speedup"] <= found["speedup_high"]


def test_every_contender_is_an_item_and_appears_once():
    names = [item.name for item in peers.items(replace(GPU, device="meta"))]
    assert len(names) == len(set(names)) > 70
    assert "U-Net, DeepCache, graphs" in names
    assert "Wan-shaped, para-attn, First-Block Cache, eager" in names
    assert names[0] == "FLUX-shaped, fxcache, the peers' cut, eager"


def test_a_missing_package_is_told():
    missing = Contender("missing", "no-such-package", no_block)
    with pytest.raises(peers.NotInstalledError, match="no-such-package is not installed"):
        peers.measure(DRY_RUN, "FLUX-shaped", missing, "eager")


def test_without_diffusers_one_item_tells_why(monkeypatch):
    def missing(name: str) -> Any:
        raise ImportError(f"no module for {name}")

    monkeypatch.setattr(peers, "import_module", missing)
    (item,) = peers.items(DRY_RUN)
    with pytest.raises(ImportError, match=r"no module for bench\.peers\.lineup"):
        item.measure()


def test_an_error_of_a_peer_is_its_result_and_one_of_fxcache_is_not(monkeypatch):
    monkeypatch.setattr(peers, "eager", lambda *_: {"error": "ValueError: no such block"})
    found = peers.measure(DRY_RUN, "", Contender("a peer", "diffusers", no_block), "eager")
    assert found == {"error": "ValueError: no such block"}
    with pytest.raises(CheckError, match="fxcache does not fail"):
        peers.measure(DRY_RUN, "", Contender("ours", "fxcache", no_block), "eager")


@pytest.mark.usefixtures("clean_dynamo")
def test_a_contender_that_fails_is_measured_as_an_error():
    broken = Contender("broken", "torch", lambda *_: 1 / 0)  # type: ignore[arg-type]
    for measure, way in ((peers.eager, "eager"), (peers.compiled, "graphs")):
        found = measure(DRY_RUN, "U-Net", broken, way)
        assert found["error"] == "ZeroDivisionError: division by zero"


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
        "one, eager": {"result": row},
        "two, eager": {"result": {"error": "ValueError: no"}},
        "three, eager": {"error": "Traceback …\nNotInstalledError: x is not installed\n"},
    }
    one, two, three = peers_table(items).splitlines()[2:]
    assert "2.00× (1.90–2.10)" in one
    assert "12 ms" in one
    assert "`ValueError: no`" in two
    assert "`NotInstalledError: x is not installed`" in three
