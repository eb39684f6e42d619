"""Tests the comparison with other caches: its measurements, its file, and its document."""

import json

import pytest
import torch

import fxcache
from bench.gpu.peers import UNET_SMALL
from bench.peers import ours
from bench.peers.compiling import count_graphs
from bench.peers.contender import Contender
from bench.peers.counting import computed, counted
from bench.peers.document import DOCUMENT, RESULTS, document, read
from bench.peers.models import Size, unet
from bench.peers.peer_deepcache import DEEPCACHE
from bench.peers.results import Results
from bench.peers.subject import Ask, Live, sample
from bench.peers.timing import Timed, eager_rows, times_of
from bench.peers.winners import Best, verdict

ASK = Ask(steps=4, interval=2)


def tiny():
    return unet(Size(UNET_SMALL, 8))


def broken(*_):
    raise RuntimeError("no such method\nand more")


@pytest.fixture(scope="module")
def rows():
    contenders = (
        ours.PLAIN,
        ours.FEWER,
        ours.SAME_CUT,
        DEEPCACHE,
        Contender("broken", "a package", broken),
    )
    return eager_rows(tiny, contenders, ASK, rounds=2)


def test_contenders_compute_the_steps_that_are_asked_for(rows):
    assert rows["no caching"]["refreshed"] == [0, 1, 2, 3]
    assert rows["fewer steps"]["steps"] == 2
    for name in ("fxcache, the peers' cut", "DeepCache"):
        assert rows[name]["refreshed"] == [0, 2], name
        assert 1 < rows[name]["ideal_speedup"] < 2, name
        assert rows[name]["repeats"], name


def test_deepcache_and_fxcache_agree_and_keep_different_amounts(rows):
    found = rows["DeepCache"]
    assert found["agreement"]["equal"]
    assert found["agreement"]["same_steps"]
    ours_bytes = rows["fxcache, the peers' cut"]["cached_bytes"]
    assert 0 < ours_bytes < found["cached_bytes"]
    assert rows["no caching"]["cached_bytes"] == 0
    assert found["waits"] > rows["no caching"]["waits"] == 0


def test_an_error_is_a_row(rows):
    assert rows["broken"] == {"package": "a package", "error": "RuntimeError: no such method"}


def test_flops_are_those_of_fxcaches_report():
    subject = tiny()
    with ours.SAME_CUT.attach(subject, ASK) as live:
        sample(subject, live, ASK)
        counts, _ = counted(subject, live, ASK)
        (capture,) = fxcache.report(live.model).captures
    (reused,) = (v for v in capture.variants if v.reused and v.hoisted == "per_run")
    assert counts.flops[1] == reused.flops


def test_peak_and_cached_bytes_of_known_tensors():
    subject = tiny()
    kept: list[torch.Tensor] = []

    def step(_, call):
        if not kept:
            kept.append(torch.ones(1000) + 1)  # 4000 bytes of ones and of the sum
        return call()

    counts, _ = counted(subject, Live(subject.model, step=step), ASK)
    assert counts.cached_bytes == 4000
    assert counts.peak_bytes >= 8000


def test_steps_that_save_little_are_computed():
    assert computed([100, 97, 97]) == [0, 1, 2]
    assert computed([100, 10, 95, 10]) == [0, 2]


def test_times_are_ratios_to_neighbouring_runs():
    found = times_of([Timed([4, 1], 20), Timed([16, 4], 40)], [0], 30)
    assert found["speedup"] == 3
    assert (found["speedup_low"], found["speedup_high"]) == (2, 4)
    assert (found["run_ms"], found["refresh_ms"], found["reuse_ms"]) == (10, 9, 2.25)


def test_fxcache_compiles_to_two_graphs():
    found = count_graphs(tiny, ours.SAME_CUT, ASK)
    assert found == {
        "graphs": 2,
        "graphs_refresh": 1,
        "graphs_reuse": 1,
        "breaks": 0,
        "recompilations": 0,
    }


def test_a_measurement_continues(tmp_path):
    file = tmp_path / "peers.json"
    first = Results(file)
    first.begin({"torch": "9"})
    first.add("a model", "graphs", {"one": {"graphs": 2}})
    again = Results(file)
    again.begin({"torch": "9"})
    assert again.has("a model", "graphs", "one")
    assert not again.has("a model", "graphs", "another")
    again.begin({"torch": "10"})
    assert not again.has("a model", "graphs")


def test_a_peer_that_wins_is_named():
    assert verdict(Best("peer", 2.0), Best("fxcache", 1.9)) == "**peer**"
    assert verdict(Best("peer", 2.0), Best("fxcache", 2.2)) == "fxcache"
    assert verdict(Best("peer", 2.0), Best("fxcache", 1.99)) == "neither"


def test_the_committed_document_equals_the_results():
    assert DOCUMENT.read_text("utf-8") == document(read())
    assert json.loads(RESULTS.read_text("utf-8")) == read()
