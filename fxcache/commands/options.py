"""Options that several commands share, and the conversion of their values."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fxcache.errors import ConfigError, ModelFileError
from fxcache.integrations.diffusers import DTYPES, installed, load_pipeline
from fxcache.partition.request import CutRequest
from fxcache.pipelines.calibrate import Sampling

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
DRAWINGS = (*PICTURES, ".svg", ".pdf")


class Result(NamedTuple):
    """The result of a command.

    Attributes:
        data: The data for ``--json``.
        text: The text for the terminal.
        status: The exit status.
    """

    data: dict[str, Any]
    text: str
    status: int = 0


def add_pipeline_options(command: argparse.ArgumentParser, cut: bool = True) -> None:
    """Add the options that select a pipeline; ``cut``: whether to add the option for the cut."""
    command.add_argument("pipeline", help="the folder of a diffusers pipeline, or a hub id")
    command.add_argument("--steps", type=int, default=50, help="denoising steps")
    if cut:
        forms = "auto, a skip index, a module path, or FIRST..LAST"
        command.add_argument("--cut", default="auto", help=forms)
    command.add_argument("--seed", type=int, default=0, help="the seed of the first image")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command.add_argument("--device", default=device, help="the device to run on")
    command.add_argument(
        "--dtype", default="float32", choices=DTYPES, help="the dtype of weights and latents"
    )


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    """Add the options that describe what to sample, and where to write the plan."""
    command.add_argument(
        "--prompts", type=Path, required=True, help="a text file with one prompt a line"
    )
    command.add_argument("--batch", type=int, default=4, help="the number of prompts in a batch")
    command.add_argument("--out", type=Path, default=Path("plan.json"), help="the plan to write")


def sampling_from(arguments: argparse.Namespace) -> Sampling:
    """Return the images to sample, from the arguments."""
    return Sampling(
        prompts_in(arguments.prompts),
        require_positive(arguments.steps, "steps"),
        arguments.seed,
        require_positive(arguments.batch, "batch"),
    )


def pipeline_from(arguments: argparse.Namespace) -> Any:
    """Load the pipeline that the arguments name, without warnings from transformers."""
    installed("transformers.utils.logging").set_verbosity_error()
    return load_pipeline(arguments.pipeline, getattr(torch, arguments.dtype), arguments.device)


def say(text: str) -> None:
    """Print a message about the progress."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def prompts_in(file: Path) -> list[str]:
    """Return the lines of a text file without empty ones; ModelFileError if there are none."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"the prompts cannot be read: {error}", where=str(file), remedy="pass a text file"
        ) from error
    if not any(lines):
        raise ModelFileError(
            "the file has no prompts", where=str(file), remedy="write one prompt a line"
        )
    return [line for line in lines if line]


def option_from(text: str) -> tuple[str, Any]:
    """Return the name and the value in a text such as ``threshold=0.3`` or ``conditional=first``.

    Raises:
        ConfigError: The text has no ``=``, or its value is neither JSON nor a word.
    """
    name, equals, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        if equals and value.isidentifier():
            return name, value
        raise ConfigError(
            f"the value in {text!r} is not JSON" if equals else f"{text!r} has no =",
            where="--option",
            remedy="write it as NAME=VALUE, for example threshold=0.3 or steps=[0,4,9]",
        ) from None


def require_suffix(file: Path, option: str, suffixes: Sequence[str]) -> Path:
    """``file`` if its suffix is one of ``suffixes``; ConfigError otherwise."""
    if file.suffix.lower() not in suffixes:
        raise ConfigError(
            f"the suffix of {file.name} names no known file type",
            where=f"{option} {file}",
            remedy=f"end the name in one of: {', '.join(suffixes)}",
        )
    return file


def require_positive(number: int, name: str) -> int:
    """``number`` if it is at least 1; ConfigError otherwise."""
    if number < 1:
        raise ConfigError(
            f"{name}={number} is below 1", where=f"--{name}", remedy=f"pass --{name} 1 or more"
        )
    return number


def cut_from(text: str) -> CutRequest:
    """Return the cut that an option names: an index if it is a number, else a name."""
    return int(text) if text.lstrip("-").isdigit() else text


def folder_for(file: Path) -> Path:
    """``file``, after creating its folder; ModelFileError if that fails."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"the folder cannot be created: {error}",
            where=str(file),
            remedy="choose another folder",
        ) from error
    return file


def writable(file: Path) -> Path:
    """``file``, after checking that it can be written; ModelFileError otherwise.

    Commands call it before they work, so that no result is lost. A file that exists keeps its
    content.
    """
    existed = folder_for(file).exists()
    try:
        file.open("ab").close()
        if not existed:
            file.unlink()
    except OSError as error:
        raise ModelFileError(
            f"the file cannot be written: {error.strerror}",
            where=str(file),
            remedy="pass the name of a file in a folder that you may write to",
        ) from error
    return file
