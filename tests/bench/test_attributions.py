"""Tests the replay of latents through the store, on runs with known counts."""

import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from bench import attributions
from bench.attributions import Counts, in_turns, one_after_the_other, replay
from bench.trajectories import Request, Trajectories

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "bench/results/attributions.json").read_text("utf-8"))["results"]
CALLS = 10
TIMESTEPS = [float(CALLS - step) for step in range(CALLS)]


def runs(step: float, same: bool = False) -> Trajectories:
    """Return two requests whose latents turn by ``step`` radians a call; equal ones if ``same``."""
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(512, 4)).Q.T
    planes = (axes[:2], axes[:2] if same else axes[2:])
    angles = [step * call for call in range(CALLS)]
    turned = [[math.cos(a) * one + math.sin(a) * other for one, other in planes] for a in angles]
    latents = torch.stack([torch.stack(at_once) for at_once in turned])
    return Trajectories(latents.reshape(CALLS, 2, 1, 1, 512), (0, 0))


def counted(drawn: Trajectories, order: attributions.Calls) -> Counts:
    counts = Counts()
    replay(drawn, TIMESTEPS, order, counts)
    return counts


def test_smooth_runs_are_distinguished():
    for loop in (in_turns, one_after_the_other):
        found = counted(runs(0.05), loop((0, 1), (0, 0), CALLS))
        assert found == Counts(calls=18, right=18)


def test_runs_that_jump_refresh():
    torch.manual_seed(0)
    noise = Trajectories(torch.randn(CALLS, 2, 1, 1, 512), (0, 0))
    found = counted(noise, in_turns((0, 1), (0, 0), CALLS))
    assert found == Counts(calls=18, refreshed=18)


def test_one_run_drawn_twice_is_not_distinguished():
    found = counted(runs(0.05, same=True), in_turns((0, 1), (0, 0), CALLS))
    assert found.wrong > 0


def test_the_command_writes_every_loop(tmp_path, monkeypatch, capsys):
    few = (Request("red apple", 0), Request("red apple", 1))
    loops = {name: (few, order) for name, (_, order) in attributions.LOOPS.items()}
    monkeypatch.setattr(attributions, "LOOPS", loops)
    monkeypatch.setattr(attributions, "REQUESTS", few)
    out = tmp_path / "found.json"
    arguments = ["attributions", "--out", str(out), "--solver", "DDIM", "--steps", "4"]
    monkeypatch.setattr(sys, "argv", arguments)
    attributions.main()
    found = json.loads(out.read_text("utf-8"))["results"]
    assert [row["loop"] for row in found] == list(loops)
    assert all(row["calls"] == row["right"] + row["refreshed"] for row in found)
    assert "DDIM" in capsys.readouterr().out


def test_only_lcm_reads_another_requests_values():
    assert {row["solver"] for row in RESULTS if row["wrong"]} <= {"LCM"}
    assert len(RESULTS) == 9 * 4 * 4


@pytest.mark.parametrize(("solver", "steps"), [("DDIM", 50), ("ancestral Euler", 20), ("LCM", 8)])
def test_the_guide_states_these_counts(solver, steps):
    rows = [row for row in RESULTS if (row["solver"], row["steps"]) == (solver, steps)]
    names = ("calls", "right", "refreshed", "wrong")
    counts = [f"{sum(row[name] for row in rows):,}" for name in names]
    guide = (ROOT / "docs/guide.md").read_text("utf-8")
    assert f"| {solver}, {steps} | {' | '.join(counts)} |" in guide
    everything = [sum(row[name] for row in RESULTS) for name in ("calls", "wrong")]
    assert re.search(rf"Of {everything[0]:,} calls, by nine solvers, {everything[1]} may", guide)
