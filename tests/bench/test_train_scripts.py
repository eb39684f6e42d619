"""Tests the training scripts for a pipeline's folder, with a few steps each."""

import sys
from typing import Any

import pytest

import fxcache
from bench import train_router, train_scale_shift
from fxcache.calibration.fingerprint import fingerprint
from fxcache.policies import BlockCaching
from tests import tiny

FEW = ("--steps", "4", "--batch", "2", "--rounds", "2")


def run(monkeypatch: pytest.MonkeyPatch, script: Any, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments), *FEW])
    script.main()


@pytest.mark.slow
def test_a_scale_shift_adjustment_is_trained_for_prompts(monkeypatch, capsys, tmp_path):
    pipeline, prompts = tiny.pipeline(), tmp_path / "prompts.txt"
    pipeline.save_pretrained(tmp_path / "model")
    prompts.write_text("a cat\na dog\na bus\n")
    plan, out = tmp_path / "plan.json", tmp_path / "trained.json"
    blocks = [
        n for n, m in pipeline.unet.named_modules() if type(m).__name__ == "Transformer2DModel"
    ]
    policy = BlockCaching(changes=dict.fromkeys(blocks, (0.0,) * 4))
    fxcache.Plan(policy, "auto", fingerprint(pipeline.unet)).save(plan)
    where = ("--model", tmp_path / "model", "--prompts", prompts, "--out", out)
    run(monkeypatch, train_scale_shift, *where, "--plan", plan)
    assert "round 1: loss" in capsys.readouterr().out
    run(monkeypatch, train_scale_shift, *where, "--plan", plan)
    assert "round" not in capsys.readouterr().out  # all of them were done
    adjustment = fxcache.Plan.load(out).adjustment
    assert adjustment
    assert any(weight.any() for weight in adjustment.weights.values())


def test_a_router_is_trained_for_named_classes(monkeypatch, capsys, tmp_path):
    tiny.class_pipeline(["cat", "dog"]).save_pretrained(tmp_path / "model")
    labels, out = tmp_path / "labels.txt", tmp_path / "plan.json"
    labels.write_text("cat\ndog\n")
    where = ("--model", tmp_path / "model", "--prompts", labels, "--out", out)
    run(monkeypatch, train_router, *where)
    assert "odd steps compute" in capsys.readouterr().out
    policy = fxcache.Plan.load(out).policy
    assert isinstance(policy, fxcache.LearnedRouter)
    scores = policy.scores
    assert sorted(scores) == [
        f"transformer_blocks.{i}.{layer}" for i in range(2) for layer in ("attn1", "ff")
    ]
    assert all(s[0] == s[2] == 1 and 0 < s[1] < 1 for s in scores.values())
