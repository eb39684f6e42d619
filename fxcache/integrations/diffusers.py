"""The conventions of diffusers: model folders, hub ids, the denoiser and the inputs of a pipeline.

The compiler pass does not depend on diffusers. This module serves the command line.
"""

import importlib
import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fxcache.errors import ConfigError, ModelFileError
from fxcache.runtime.denoisers import DENOISERS, denoisers_of

# owner/name, of letters, digits and marks; neither part begins or ends with a mark.
HUB_ID = re.compile(r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
DTYPES = ("float32", "float16", "bfloat16")  # of pipelines


def load_empty(source: str) -> nn.Module:
    """The denoiser that ``source`` describes, on meta. No weights are read.

    Args:
        source: A config.json, the folder of a model or pipeline, or a hub id.

    Raises:
        ModelFileError: There is no configuration of a diffusers model.
    """
    config = read_config(source)
    diffusers = installed("diffusers")
    name = config.get("_class_name")
    kind = getattr(diffusers, str(name), None)
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise ModelFileError(
            f"{name!r} is not a model of diffusers {diffusers.__version__}",
            where=source,
            remedy="pass the denoiser's own config.json, or update diffusers",
        )
    with torch.device("meta"):
        return kind.from_config(config).eval()  # type: ignore[attr-defined]


def installed(package: str, extra: str = "diffusers") -> ModuleType:
    """Import an optional package, which pip installs with the dependencies ``extra`` of fxcache.

    Raises:
        ModelFileError: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelFileError(
            f"{package} cannot be imported: {error}",
            where=f"import {package}",
            remedy=f"install the optional dependencies: pip install 'fxcache[{extra}]'",
        ) from error


def read_config(source: str) -> dict[str, Any]:
    """The configuration of the denoiser at ``source``, from a file, a folder or the hub."""
    require_found(source)
    path = Path(source)
    candidates = [path] if path.is_file() else [path / "config.json"]
    candidates += [path / name / "config.json" for name in DENOISERS]
    for candidate in candidates:
        if candidate.is_file():
            return parsed(candidate)
    if path.exists():
        raise ModelFileError(
            "there is no configuration of a denoiser here",
            where=source,
            remedy=f"expected one of: {', '.join(str(c) for c in candidates)}",
        )
    return hub_config(source)


def require_found(source: str) -> None:
    """Raise ModelFileError for a path that does not exist, unless it may be a hub id."""
    path = Path(source)
    local = ("/" in source and path.parent.is_dir()) or not HUB_ID.fullmatch(source)
    if not source or (local and not path.exists()):
        raise ModelFileError(
            "there is no such file or folder, and this is no hub id",
            where=source or "an empty name",
            remedy="check the spelling; a hub id has the form owner/name",
        )


def parsed(path: Path, expected: str = "a diffusers config.json") -> dict[str, Any]:
    """Read the JSON object in a file.

    Args:
        path: The file.
        expected: A description of the expected file, for error messages.

    Raises:
        ModelFileError: The file cannot be read, or it has no JSON object.
    """
    where, remedy = str(path), f"pass {expected}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"this file cannot be read: {error.strerror}"
        raise ModelFileError(what, where=where, remedy=remedy) from error
    except ValueError as error:
        raise ModelFileError(f"this is not JSON: {error}", where=where, remedy=remedy) from error
    if not isinstance(content, dict):
        raise ModelFileError("this JSON is not an object", where=where, remedy=remedy)
    return content


def hub_config(source: str) -> dict[str, Any]:
    """The configuration of the denoiser with this hub id."""
    any_model = installed("diffusers").UNet2DConditionModel  # all models share load_config
    failure: Exception | None = None
    for subfolder in (*DENOISERS, None):
        try:
            return dict(any_model.load_config(source, subfolder=subfolder))
        except (OSError, ValueError) as error:
            failure = error
    raise ModelFileError(
        f"this is neither a file, a folder nor a readable hub id: {failure}",
        where=source,
        remedy="check the spelling, the network and, for gated models, the login",
    ) from failure


def load_pipeline(source: str, dtype: torch.dtype, device: str) -> Any:
    """Load the diffusers pipeline at ``source``, a folder or a hub id.

    Raises:
        ModelFileError: diffusers cannot load the pipeline.
        ConfigError: The device does not exist.
    """
    require_found(source)
    require_device(device)
    pipelines = installed("diffusers").DiffusionPipeline
    try:
        return pipelines.from_pretrained(source, dtype=dtype).to(device)
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"diffusers cannot load this pipeline: {error}",
            where=source,
            remedy="pass the folder of a pipeline (with model_index.json) or a hub id",
        ) from error


def require_device(device: str) -> None:
    """Raise ConfigError unless tensors can be created on ``device``."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise ConfigError(
            f"torch has no such device here: {str(error).splitlines()[0]}",
            where=f"device={device!r}",
            remedy="pass a device of this machine that torch supports, such as cpu",
        ) from error


def denoiser_of(pipeline: Any) -> nn.Module:
    """The first denoiser of the pipeline; ConfigError if it has none."""
    return next(iter(denoisers_of(pipeline).values()))


def conditions(pipeline: Any, prompts: Sequence[str]) -> list[Any]:
    """The first argument of the pipeline: class ids for a class-conditional one, else the prompts.

    Raises:
        ConfigError: The pipeline does not know a class.
    """
    if not hasattr(pipeline, "get_label_ids"):
        return list(prompts)
    for name in prompts:
        if name not in pipeline.labels:
            nearest = get_close_matches(name, pipeline.labels, n=5, cutoff=0)
            raise ConfigError(
                f"{name!r} is not a class of this pipeline",
                where=type(pipeline).__name__,
                remedy=f"similar classes: {', '.join(nearest) or 'none'}",
            )
    return list(pipeline.get_label_ids(list(prompts)))
