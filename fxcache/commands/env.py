"""``fxcache env``: versions and device, for bug reports."""

import argparse
import platform
from typing import Any

import torch
from tabulate import tabulate

from fxcache.commands.options import Result
from fxcache.versions import version_of

PACKAGES = ("fxcache", "torch", "triton", "diffusers", "transformers", "numpy")


def add_options(_: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(_: argparse.Namespace) -> Result:
    """List the versions and the device."""
    data: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    data |= {package: version_of(package) for package in PACKAGES}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    data |= {"cuda": torch.version.cuda, "gpu": gpu, "threads": torch.get_num_threads()}
    return Result(data, tabulate([(k, v or "–") for k, v in data.items()], tablefmt="plain"))
