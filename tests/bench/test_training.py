"""Tests the parts of the training scripts. The training itself takes an hour and a half."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.emoji_sd import parts
from bench.emoji_sd.export import load_as_float32
from bench.emoji_sd.training import Average, Run, batches, learning_rate_factor, noised


def trained(path: Path, steps: int, until: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    model, average = nn.Linear(3, 1), None
    average = Average(model)
    run = Run(path, {"model": model, "average": average}, steps, peak_lr=0.1)
    data = torch.arange(30.0).reshape(10, 3)

    def loss() -> torch.Tensor:
        if run.step == until:
            raise KeyboardInterrupt
        average.update(model, run.step)
        return model(data / 30).square().mean()

    run.train(loss, "test")
    return model


def test_a_run_resumes_from_its_checkpoint_as_if_never_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.emoji_sd.training.CHECKPOINT_EVERY", 5)
    whole = trained(tmp_path / "whole.pt", 20)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts.pt", 20, until=13)
    assert torch.load(tmp_path / "parts.pt", weights_only=True)["step"] == 10
    resumed = trained(tmp_path / "parts.pt", 20)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not list(tmp_path.glob("*.partial"))


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    factors = [learning_rate_factor(step, 1000) for step in range(1001)]
    assert factors[0] < 0.01
    assert factors[200:700] == [1.0] * 500
    assert factors[850] == pytest.approx(0.5)
    assert factors[1000] == 0


def test_the_average_follows_and_can_be_copied_back():
    model = nn.Linear(2, 2)
    average = Average(model, decay=0.5)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    average.update(model, 1000)
    average.copy_to(model)
    assert torch.allclose(model.weight, start + 0.5)


def test_batches_visit_everything_once_an_epoch():
    order = batches(10, 5, seed=0)
    for _ in range(3):
        assert sorted([*next(order).tolist(), *next(order).tolist()]) == list(range(10))


def test_noise_and_velocity_restore_the_clean_latent():
    scheduler, clean = parts.noise_scheduler(), torch.randn(4, 8, 2, 2)
    noisy, at, velocity = noised(scheduler, clean)
    kept = scheduler.alphas_cumprod[at].reshape(4, 1, 1, 1)
    assert torch.allclose(kept.sqrt() * noisy - (1 - kept).sqrt() * velocity, clean, atol=1e-5)


def test_each_word_of_a_caption_is_one_token():
    captions = ["red apple", "tiger face", "t-rex"]
    ids = parts.tokenizer(captions)(["red apple", "tiger face"]).input_ids
    assert [len(i) for i in ids] == [4, 4]


def test_the_parts_fit_into_sixteen_mebibytes_of_fp16():
    vocabulary = parts.tokenizer(["red apple"])
    made = (parts.text_encoder(vocabulary), parts.autoencoder(), parts.unet())
    assert 2 * sum(p.numel() for m in made for p in m.parameters()) < 16 * 2**20


def test_the_text_encoder_loads_in_the_dtype_of_the_others(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"dtype": "float16", "hidden_size": 3}')
    load_as_float32(config)
    assert json.loads(config.read_text()) == {"dtype": "float32", "hidden_size": 3}
