"""Tests the bundled models on ONNX Runtime, in a process that cannot import torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.deploy.test_onnx import EXAMPLE, error

MODELS = Path(__file__).parents[2] / "bench" / "models"
STEPS, GUIDANCE = 20, 7.5
# Both sides round in another order at each of 20 steps, and guidance amplifies the difference of
# two predictions. Measured: 2e-6 and 5e-6 of the largest value.
TOLERANCE = 5e-5
BLOCKED = """
import runpy, sys
for name in ("torch", "fxcache", "diffusers"):
    sys.modules[name] = None
sys.argv = ["run.py", *sys.argv[1:]]
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@torch.no_grad()
def sampled(scheduler: Any, predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor) -> Tensor:
    """Return the latents that DDIM of diffusers finds, with guidance."""
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        without, guided = predict(torch.cat([latents] * 2), t).chunk(2)
        predicted = without + GUIDANCE * (guided - without)
        latents = scheduler.step(predicted, t, latents).prev_sample
    return latents


def emoji_sd() -> tuple[nn.Module, Any, str, dict[str, Tensor]]:
    """Return the U-Net, its noise scheduler, the name of its latent, and its conditioning."""
    pipe: Any = diffusers.StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd")
    with torch.no_grad():
        guided, without = pipe.encode_prompt(["red apple"], "cpu", 1, True)
    text = torch.cat([without, guided])
    return pipe.unet, pipe.scheduler, "sample", {"encoder_hidden_states": text}


def emoji_dit() -> tuple[nn.Module, Any, str, dict[str, Tensor]]:
    """Return the same for the transformer."""
    pipe: Any = diffusers.DiTPipeline.from_pretrained(MODELS / "emoji-dit")
    labels = torch.tensor([1000, *pipe.get_label_ids(["red apple"])])
    return pipe.transformer, pipe.scheduler, "hidden_states", {"class_labels": labels}


def on_onnx_runtime(folder: Path, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Return what ``examples/onnx/run.py`` writes."""
    given, out = folder.parent / "inputs.npz", folder.parent / "out.npz"
    arrays: dict[str, Any] = {name: value.numpy() for name, value in inputs.items()}
    np.savez(given, **arrays)
    options = ["--steps", str(STEPS), "--guidance", str(GUIDANCE)]
    paths = map(str, (EXAMPLE, folder, given, out))
    command = [sys.executable, "-W", "error", "-c", BLOCKED, *paths, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return dict(np.load(out))


@pytest.mark.sweep(1)
@pytest.mark.parametrize("bundled", [emoji_dit, emoji_sd])
def test_a_bundled_model_runs_without_torch(bundled, tmp_path):
    model, scheduler, latent, conditioning = bundled()
    fxcache.optimize(model, fxcache.Uniform(3))

    def predict(latents: Tensor, t: Tensor) -> Tensor:
        timestep = t.expand(len(latents)) if latent == "hidden_states" else t
        return model(**{latent: latents}, timestep=timestep, **conditioning).sample

    noise = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with fxcache.session(model, num_steps=STEPS):
        expected = sampled(scheduler, predict, noise)
    folder = fxcache.export_onnx(model, tmp_path / "onnx", STEPS)
    found = torch.from_numpy(on_onnx_runtime(folder, {latent: noise, **conditioning})[latent])
    assert error(found, expected) < TOLERANCE
    assert json.loads((folder / "schedule.json").read_text())["runs"] == {
        str(STEPS): [name for i in range(STEPS) for name in [["full", "cached_skip"][i % 3 > 0]]]
    }
