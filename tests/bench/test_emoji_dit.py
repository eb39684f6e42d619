"""Tests the training, the export, the images and the caching of the bundled DiT."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiTPipeline
from torch.nn.functional import mse_loss
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from bench.emoji_dit import export, train
from bench.emoji_dit.parts import transformer
from bench.emoji_sd import pictures
from bench.emoji_sd.export import generators
from bench.emoji_sd.training import load_average
from tests.loops import refreshes

MODELS = Path(__file__).parents[2] / "bench" / "models"
BUNDLED = MODELS / "emoji-dit"
TINY = {"layers": 1, "heads": 1, "head_width": 16}
DRAWN = ["red apple", "tiger face", "fire engine", "penguin"]
STEPS = 10


@pytest.fixture(scope="module")
def bundled() -> DiTPipeline:
    return DiTPipeline.from_pretrained(BUNDLED)


@pytest.fixture
def optimised(bundled: DiTPipeline) -> Any:
    yield lambda policy: fxcache.optimize(bundled.transformer, policy=policy)
    fxcache.restore(bundled.transformer)


def latents(pipe: DiTPipeline) -> torch.Tensor:
    """Return the inputs of the autoencoder's decoder."""
    given: list[torch.Tensor] = []
    hook = pipe.vae.post_quant_conv.register_forward_pre_hook(lambda _, x: given.append(*x))
    generator = torch.Generator().manual_seed(0)
    pipe(pipe.get_label_ids(["tiger face"]), num_inference_steps=STEPS, generator=generator)
    hook.remove()
    return given[0]


def test_one_training_step_moves_the_model_and_its_average(tmp_path):
    model, checkpoint = transformer(**TINY), tmp_path / "transformer.pt"
    assert not model.proj_out_2.weight.any()
    train.fit(model, torch.randn(5, 8, 8, 8), checkpoint, steps=1)
    assert model.proj_out_2.weight.any()
    assert torch.load(checkpoint, weights_only=True)["step"] == 1
    load_average(model, checkpoint)
    assert not model.proj_out_2.weight.any()  # updated before the step, so still the start


def test_an_exported_model_draws_by_name(tmp_path):
    vae = AutoencoderKL.from_pretrained(MODELS / "emoji-sd" / "vae")
    export.export(transformer(**TINY), vae, ["red apple", "tiger face"], tmp_path)
    pipe = DiTPipeline.from_pretrained(tmp_path)
    assert pipe.get_label_ids(["tiger face", "red apple"]) == [1, 0]
    assert {p.dtype for p in pipe.transformer.parameters()} == {torch.float32}
    export.sample(tmp_path, ["red apple"], steps=2, out=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()
    for config in tmp_path.rglob("*.json"):
        assert str(MODELS) not in config.read_text()


def test_the_bundled_dit_is_below_its_size_limit():
    files = [f for f in BUNDLED.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 16 * 2**20


def test_the_bundled_dit_draws_its_training_images(bundled):
    glyphs, names = pictures.training_set()
    ids = [names.index(name) for name in DRAWN]
    assert bundled.get_label_ids(DRAWN) == ids
    seeded = generators(len(ids))
    drawn = bundled(ids, num_inference_steps=20, generator=seeded, output_type="pt").images
    with torch.no_grad():
        best = bundled.vae(glyphs[ids]).sample / 2 + 0.5
    errors = mse_loss(drawn, best, reduction="none").mean(dim=(1, 2, 3))
    assert (-10 * errors.log10()).mean() > 30  # untrained: 8


def test_refreshing_at_every_step_changes_no_bit(bundled, optimised):
    expected = latents(bundled)
    model = optimised(fxcache.Uniform(interval=1))
    assert torch.equal(latents(bundled), expected)
    assert refreshes(model) == [list(range(STEPS))]


def test_refreshing_every_other_step_saves_the_reported_flops(bundled, optimised):
    with FlopCounterMode(display=False) as plain:
        latents(bundled)
    model = optimised(fxcache.Uniform(interval=2))
    latents(bundled)
    with FlopCounterMode(display=False) as cached:
        latents(bundled)
    spent, full = (c.get_flop_counts()["DiTTransformer2DModel"] for c in (cached, plain))
    reported = fxcache.report(model)
    assert reported.captures[0].cut["share_saved"] > 0.5
    assert reported.runs[-1].refreshes == list(range(0, STEPS, 2))
    saved = sum(full.values()) / sum(spent.values())
    assert saved == pytest.approx(reported.runs[-1].ideal_speedup, rel=0.01)
