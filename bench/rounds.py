"""The arguments and the sampling rounds that the training scripts share."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fxcache.calibration.training import Options
from fxcache.commands.options import prompts_in
from fxcache.integrations.diffusers import conditions, denoiser_of, load_pipeline

BUNDLED = Path(__file__).parent / "models" / "emoji-sd"
HELD_OUT = range(1_000_000, 1_000_004)  # rounds whose noise is not used in training


@dataclass(frozen=True)
class Rounds:
    """Samples ``batch`` latents in each round. Image i of all rounds has the seed ``seed + i``.

    The prompts, or names of classes, are used in turn.
    """

    pipeline: Any
    prompts: Sequence[str]
    steps: int
    batch: int
    seed: int

    def __call__(self, index: int) -> None:
        numbers = range(index * self.batch, (index + 1) * self.batch)
        prompts = [self.prompts[n % len(self.prompts)] for n in numbers]
        device = next(denoiser_of(self.pipeline).parameters()).device
        self.pipeline(
            conditions(self.pipeline, prompts),
            num_inference_steps=self.steps,
            generator=[torch.Generator(device).manual_seed(self.seed + n) for n in numbers],
            output_type="latent",
        )


def parser(description: str | None, options: type[Options]) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    top.add_argument("--model", type=Path, default=BUNDLED, help="the pipeline's folder")
    top.add_argument("--prompts", type=Path, required=True, help="prompts or labels, one a line")
    top.add_argument("--out", type=Path, required=True, help="the plan to write")
    top.add_argument("--steps", type=int, default=50)
    top.add_argument("--batch", type=int, default=4, help="pictures a round")
    top.add_argument("--seed", type=int, default=0)
    top.add_argument("--rounds", type=int, default=options.rounds)
    top.add_argument("--learning-rate", type=float, default=options.learning_rate)
    top.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return top


def rounds_from(arguments: argparse.Namespace) -> Rounds:
    pipeline = load_pipeline(str(arguments.model), torch.float32, arguments.device)
    pipeline.set_progress_bar_config(disable=True)
    prompts = prompts_in(arguments.prompts)
    return Rounds(pipeline, prompts, arguments.steps, arguments.batch, arguments.seed)


def checkpoint_of(out: Path) -> Path:
    """Return the checkpoint file beside the plan."""
    return out.with_suffix(".training.pt")


def print_loss(index: int, loss: float) -> None:
    print(f"round {index}: loss {loss:.4g}", flush=True)
