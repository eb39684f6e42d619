"""Options of commands that generate images with an optimised pipeline."""

import argparse
from pathlib import Path
from typing import Any

import torch

from fxcache.calibration.plan import Plan
from fxcache.codecs.quantized_rows import LARGEST
from fxcache.commands.contenders import (
    FORECAST,
    POLICY,
    Contender,
    add_contender_options,
    contenders_from,
)
from fxcache.commands.options import add_pipeline_options, cut_from, require_positive
from fxcache.config import CacheConfig
from fxcache.errors import ConfigError
from fxcache.pipelines.drawing import Drawing
from fxcache.policies import NonUniform, Policy, Uniform

CACHE_DTYPES = tuple(str(dtype).removeprefix("torch.") for dtype in LARGEST)
SHORTHANDS = ("interval", "center", "power")
FLAGS = {
    "offload": "move weights that no step reads to the CPU; needs a GPU",
    "partial-evaluation": "move cuts behind linear maps of cached values",
    "kernels": "read the cache with Triton kernels, on CUDA devices",
}


def add_drawing_options(command: argparse.ArgumentParser, prompt: str | None = None) -> None:
    """Add the options that select a pipeline, its images, and how it is optimised.

    Args:
        command: The command.
        prompt: Which prompt is used by default; None if one is required.
    """
    add_pipeline_options(command)
    command.add_argument(
        "--prompt",
        action="append",
        required=prompt is None,
        help="a prompt, or the name of a class; can be repeated"
        + (f"; by default {prompt}" if prompt else ""),
    )
    command.add_argument(
        "--plan", type=Path, help="a plan of `calibrate` or `tune`, instead of interval and cut"
    )
    add_contender_options(command, plan=False)
    schedule = {
        "--interval": (int, "the policy uniform with this interval"),
        "--center": (float, "the policy nonuniform with this center"),
        "--power": (
            float,
            f"how strongly to concentrate them; needs --center (default: {NonUniform.power})",
        ),
    }
    for option, (kind, purpose) in schedule.items():
        command.add_argument(option, type=kind, default=argparse.SUPPRESS, help=purpose)
    hoist = "which values to compute before the steps"
    command.add_argument(
        "--hoist", choices=("none", "auto", "once", "table"), default="auto", help=hoist
    )
    dtype = "the dtype of stored values"
    command.add_argument("--cache-dtype", choices=CACHE_DTYPES, help=dtype)
    for option, purpose in FLAGS.items():
        command.add_argument(f"--{option}", action="store_true", help=purpose)


def drawing_from(arguments: argparse.Namespace) -> Drawing:
    """Return the images to generate, from the arguments.

    Raises:
        ConfigError: An option has a wrong value, or options exclude each other.
        ModelFileError: The plan cannot be read.
    """
    contender = contender_from(arguments)
    return Drawing(
        prompts=arguments.prompt,
        steps=require_positive(arguments.steps, "steps"),
        seed=arguments.seed,
        policy=contender.policy or policy_from(arguments),
        cut=cut_from(arguments.cut),
        plan=Plan.load(arguments.plan) if arguments.plan else None,
        options=options_from(arguments) | contender.optimize_options,
    )


def contender_from(arguments: argparse.Namespace) -> Contender:
    """Return the chosen policy, forecast and guidance.

    Raises:
        ConfigError: There are two policies, or options exclude each other.
    """
    first, *others = contenders_from(arguments) or [Contender()]
    shorthand = [f"--{name}" for name in SHORTHANDS if name in arguments]
    if others or (POLICY in first.names and shorthand):
        raise ConfigError(
            "there is more than one policy",
            where=" ".join([f"--policy {c.label}" for c in (first, *others)] + shorthand),
            remedy="pass one; `fxcache compare` compares several",
        )
    if arguments.plan and {POLICY, FORECAST} & first.names.keys():
        raise ConfigError(
            "the plan has its policy and its forecast",
            where=f"--plan {arguments.plan} with {first.label}",
            remedy="leave out --plan, or the others",
        )
    return first


def options_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of ``fxcache.optimize`` other than the policy and the cut."""
    dtype = arguments.cache_dtype
    flags = {name: getattr(arguments, name) for name in (f.replace("-", "_") for f in FLAGS)}
    cache = CacheConfig(dtype=getattr(torch, dtype) if dtype else None, **flags)
    hoist = None if arguments.hoist == "none" else arguments.hoist
    return {"hoist": hoist, "cache": cache}


def policy_from(arguments: argparse.Namespace) -> Policy | None:
    """Return the policy of the options; None for the default policy, or that of a plan.

    Raises:
        ConfigError: The options exclude each other.
    """
    passed = {name: getattr(arguments, name) for name in SHORTHANDS if name in arguments}
    if not passed:
        return None
    if arguments.plan or ("power" in passed and "center" not in passed):
        raise ConfigError(
            "the plan has its schedule" if arguments.plan else "a uniform schedule has no power",
            where=" ".join(f"--{name} {value:g}" for name, value in passed.items()),
            remedy="leave out --plan, or these" if arguments.plan else "pass --center as well",
        )
    return NonUniform(**passed) if "center" in passed else Uniform(**passed)
