"""Tests the comparison of latents with known cosines, and a small run of the command."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch

from bench import latents
from bench.latents import Comparison, cosines, relation, rivalry, sample
from bench.trajectories import SOLVERS, Request, Trajectories, first_call, load, scheduler_of
from bench.trajectories import trajectories as draw

APPLE = Request("red apple", 1)
EDIT = Request("red apple", 2, 0.5)


def direction(degrees: float) -> torch.Tensor:
    """A latent ``[1, 1, 2]`` at an angle in the plane."""
    radians = math.radians(degrees)
    return torch.tensor([math.cos(radians), math.sin(radians)]).reshape(1, 1, 2)


def test_cosines_of_each_pair():
    angles = torch.stack([direction(d).flatten() for d in (0, 60, 90)])
    expected = torch.tensor([[1, 0.5, 0], [0.5, 1, math.sqrt(0.75)], [0, math.sqrt(0.75), 1]])
    assert torch.allclose(cosines(angles, angles), expected, atol=1e-6)


def test_equal_elements_are_ignored():
    mask = torch.full((1, 4), 7.0)
    first = torch.cat([torch.tensor([[1.0, 0.0]]), mask], 1)
    second = torch.cat([torch.tensor([[-1.0, 0.5]]), mask], 1)
    expected = -1 / math.sqrt(1.25)
    assert cosines(first, second).item() == pytest.approx(expected)
    assert cosines(first, first).item() == 1


@pytest.mark.parametrize(("shape", "stride"), [((3, 8, 8), 1), ((4, 32, 32), 4), ((4, 33, 32), 4)])
def test_a_sample_has_an_even_stride(shape, stride):
    values = torch.arange(math.prod(shape)).reshape(1, *shape)
    taken = sample(values)[0]
    assert taken.dtype == torch.float32
    assert len(taken) == min(math.prod(shape), latents.SAMPLE)
    assert taken.diff().unique().tolist() == [stride]


def test_relations():
    assert relation(EDIT, replace(EDIT, seed=3, strength=0.9)) == "same picture"
    assert relation(APPLE, EDIT) == "same caption"
    assert relation(APPLE, replace(APPLE, caption="green apple")) == "same seed"
    assert relation(APPLE, Request("penguin", 9)) == "unrelated"


def test_rivals_are_counted():
    own, foreign = torch.tensor([0.9, 0.9, 0.5, 0.2]), torch.tensor([0.5, 0.85, 0.6, 0.9])
    found = rivalry(own, foreign)
    assert (found["calls"], found["own_closest"]) == (4, 2)
    assert found["max_cosine"] == pytest.approx(0.9)
    assert found["own_clearly"] == {"0.25": 1, "0.5": 1, "0.75": 2}
    assert found["foreign_clearly"] == {"0.25": 1, "0.5": 1, "0.75": 1}


def test_a_comparison_of_known_directions():
    """Two requests turn by 10 and 20 degrees a call, 90 apart. The third begins at call 2."""
    requests = (APPLE, Request("penguin", 2), replace(EDIT, caption="owl", seed=3))
    turns = torch.stack(
        [
            torch.stack([direction(10 * k), direction(90 + 20 * k), direction(200) * (k > 1)])
            for k in range(4)
        ]
    )
    compared = Comparison(Trajectories(turns, (0, 0, 2)), requests, torch.float32)
    own, second = compared.own(1), compared.own(2)
    assert own[0].isnan().all()
    assert own[1:, 0].tolist() == pytest.approx([math.cos(math.radians(10))] * 3)
    assert own[1:, 1].tolist() == pytest.approx([math.cos(math.radians(20))] * 3)
    assert own[:, 2].isnan().tolist() == [True, True, True, False]
    assert second[2:, 0].tolist() == pytest.approx([math.cos(math.radians(20))] * 2)
    assert second[:, 2].isnan().all()
    # At call 1 the first is at 10 degrees; the second is at 90, 110 and 130 around then.
    assert compared.near(1)[0, 1].item() == pytest.approx(math.cos(math.radians(80)), abs=1e-6)
    measured = compared.measure()
    assert measured["rivals"]["unrelated"]["calls"] == 7
    assert measured["own_distance_ratio"]["median"] == pytest.approx(1, abs=1e-3)
    # From noise, the second starts at 90 degrees where the first ends at 30. The third starts at
    # 200, where the second ends at 150.
    starts = measured["starts"]
    assert starts["noise"]["unrelated"] == pytest.approx(math.cos(math.radians(60)), abs=1e-6)
    from_picture = starts["picture 0.5"]["unrelated"]
    assert from_picture == pytest.approx(math.cos(math.radians(50)), abs=1e-6)
    assert measured["restart"] == pytest.approx(1), "the third has not moved"


@pytest.mark.parametrize(
    ("steps", "strength", "order", "first"),
    [(50, None, 1, 0), (50, 0.3, 1, 35), (4, 0.3, 1, 3), (8, 0.9, 2, 2), (20, 1.0, 1, 0)],
)
def test_image_to_image_starts_later(steps, strength, order, first):
    assert first_call(steps, strength, order) == first


@pytest.fixture(scope="module")
def pipeline():
    return load()


@pytest.mark.sweep(4)
@pytest.mark.parametrize("solver", SOLVERS)
def test_each_solver_draws_the_same_in_any_batch(solver, pipeline):
    """A request's latents depend on its seed, not on what shares its batch."""
    requests = (APPLE, Request("penguin", 2), EDIT)
    both, alone = draw(pipeline, solver, 2, requests), draw(pipeline, solver, 2, requests[1:])
    calls = len(scheduler_of(pipeline, solver, 2).timesteps)
    assert both.latents.shape == (calls, 3, 8, 8, 8)
    assert both.latents.isfinite().all()
    assert both.first[:2] == (0, 0)
    assert 0 < both.first[2] < calls
    assert not both.latents[: both.first[2], 2].any()
    assert both.latents[both.first[2] :, 2].any()
    assert torch.allclose(both.latents[:, 1:], alone.latents, atol=1e-2)


def test_the_command_writes_its_measurements(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latents, "REQUESTS", (APPLE, Request("penguin", 3), EDIT))
    out = tmp_path / "latents.json"
    options = ["--out", str(out), "--solver", "Euler", "--steps", "3", "--steps", "4"]
    monkeypatch.setattr(sys, "argv", ["latents", *options])
    latents.main()
    written = json.loads(out.read_text())
    found = [(r["solver"], r["steps"], r["dtype"]) for r in written["results"]]
    assert found == [("Euler", s, d) for s in (3, 4) for d in ("float32", "bfloat16")]
    assert written["requests"] == 3
    assert all(-1 < r["own"]["min"] < 1 for r in written["results"])
    assert "own closest" in capsys.readouterr().out
