"""What commands share: their options, and what these stand for."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fxcache.errors import ConfigError, ModelFileError
from fxcache.integrations.diffusers import installed, load_pipeline
from fxcache.partition.choose import CutRequest
from fxcache.pipelines.calibrate import Sampling

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
DRAWINGS = (*PICTURES, ".svg", ".pdf")
DTYPES = ("float32", "float16", "bfloat16")
Result = tuple[dict[str, Any], str]  # for --json, and for the terminal


def add_pipeline_options(command: argparse.ArgumentParser, cut: bool = True) -> None:
    """``cut``: whether the command is told where to cut."""
    command.add_argument("pipeline", help="a diffusers pipeline's folder or a hub id")
    command.add_argument("--steps", type=int, default=50, help="of denoising")
    if cut:
        forms = "auto, a skip index, a module, or FIRST..LAST"
        command.add_argument("--cut", default="auto", help=forms)
    command.add_argument("--seed", type=int, default=0, help="of the first picture")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command.add_argument("--device", default=device, help="where to draw")
    command.add_argument("--dtype", default="float32", choices=DTYPES, help="of weights, latents")


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prompts", type=Path, required=True, help="a text file, one a line")
    command.add_argument("--batch", type=int, default=4, help="prompts at a time")
    command.add_argument("--out", type=Path, default=Path("plan.json"), help="the plan to write")


def sampling_from(arguments: argparse.Namespace) -> Sampling:
    return Sampling(
        prompts_in(arguments.prompts),
        require_positive(arguments.steps, "steps"),
        arguments.seed,
        require_positive(arguments.batch, "batch"),
    )


def pipeline_from(arguments: argparse.Namespace) -> Any:
    """The pipeline that the arguments name; transformers' advice is left out, we are on our own."""
    installed("transformers.utils.logging").set_verbosity_error()
    return load_pipeline(arguments.pipeline, getattr(torch, arguments.dtype), arguments.device)


def prompts_in(file: Path) -> list[str]:
    """The lines of a text file, empty ones left out; ModelFileError where there are none."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"the prompts cannot be read: {error}", where=str(file), remedy="pass a text file"
        ) from error
    if not any(lines):
        raise ModelFileError(
            "there are no prompts in it", where=str(file), remedy="write one prompt a line"
        )
    return [line for line in lines if line]


def option_from(text: str) -> tuple[str, Any]:
    """``threshold=0.3`` as name and value; ConfigError where it is none."""
    name, equals, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise ConfigError(
            f"{text!r} does not give an option a number" if equals else f"{text!r} has no =",
            where="--option",
            remedy="write it as NAME=VALUE, for example threshold=0.3",
        ) from None


def require_suffix(file: Path, option: str, suffixes: Sequence[str]) -> Path:
    """``file`` if its name says what kind it is; ConfigError before any work is done."""
    if file.suffix.lower() not in suffixes:
        raise ConfigError(
            f"{file.name} does not say what kind of file to write",
            where=f"{option} {file}",
            remedy=f"end the name in one of: {', '.join(suffixes)}",
        )
    return file


def require_positive(number: int, name: str) -> int:
    if number < 1:
        raise ConfigError(
            f"{name}={number} is below 1", where=f"--{name}", remedy=f"pass --{name} 1 or more"
        )
    return number


def cut_from(text: str) -> CutRequest:
    return int(text) if text.lstrip("-").isdigit() else text


def folder_for(file: Path) -> Path:
    """``file``, its folder made; ModelFileError where that cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"cannot write there: {error}", where=str(file), remedy="choose another place"
        ) from error
    return file
