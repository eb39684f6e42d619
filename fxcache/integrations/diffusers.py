"""The conventions of diffusers: configurations, model folders, the denoiser of a pipeline.

The compiler pass does not depend on diffusers. This module serves ``list_cuts`` without inputs and
the command line.
"""

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import tree_map_only
from fxcache.errors import ConfigError, ModelFileError
from fxcache.runtime.denoisers import DENOISERS, denoisers_of

PROMPT_TOKENS = 77
FRAMES = 16


def example_inputs(model: nn.Module, batch: int = 1) -> dict[str, Any]:
    """Example inputs for a diffusers U-Net or DiT, from its configuration.

    Args:
        model: The model. The inputs are on its device.
        batch: The batch size.

    Raises:
        ConfigError: The configuration does not determine the inputs.
    """
    config: Mapping[str, Any] = getattr(model, "config", None) or {}
    accepted = inspect.signature(type(model).forward).parameters
    by_class = "class_labels" in accepted and config.get("num_embeds_ada_norm")
    if not config.get("in_channels") or not (by_class or "sample" in accepted):
        raise ConfigError(
            f"the configuration of {type(model).__name__} does not determine its inputs",
            where="fxcache.list_cuts",
            remedy="pass its inputs by keyword: list_cuts(model, sample=..., timestep=...)",
        )
    weight = next(model.parameters())

    def placed(described: Tensor) -> Tensor:
        """Zeros on the device of the weights. Floating-point inputs have their dtype."""
        dtype = weight.dtype if described.is_floating_point() else described.dtype
        return torch.zeros(described.shape, dtype=dtype, device=weight.device)

    described = (DiTInputShapes if by_class else InputShapes)(config, batch).inputs()
    inputs = {name: value for name, value in described.items() if name in accepted}
    return tree_map_only(Tensor, placed, inputs)


class InputShapes:
    """The shapes of a U-Net's inputs, from its configuration, as tensors on meta."""

    def __init__(self, config: Mapping[str, Any], batch: int):
        self.config, self.batch = config, batch
        blocks = " ".join(map(str, config.get("down_block_types") or ()))
        self.frames_first = "SpatioTemporal" in blocks
        self.frames_last = "3D" in blocks or "Motion" in blocks
        self.text_a_frame = "Motion" in blocks

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor ``[batch, *shape]`` on meta."""
        return torch.empty(self.batch, *shape, dtype=dtype, device="meta")

    def inputs(self) -> dict[str, Any]:
        """All inputs that the configuration asks for, by name."""
        inputs: dict[str, Any] = {
            "sample": self.sample(),
            "timestep": torch.empty((), dtype=torch.int64, device="meta"),
        }
        if width := self.text_width():
            inputs["encoder_hidden_states"] = self.text(width)
        if self.frames_first:
            inputs["added_time_ids"] = self.tensor(3)
        if (labels := self.class_labels()) is not None:
            inputs["class_labels"] = labels
        if self.config.get("addition_embed_type") == "text_time":
            inputs["added_cond_kwargs"] = self.text_time()
        return inputs

    def sample(self) -> Tensor:
        """The latent."""
        size = self.config.get("sample_size") or 64
        height, width = (size, size) if isinstance(size, int) else size
        channels = self.config["in_channels"]
        if self.frames_first:
            return self.tensor(self.config.get("num_frames") or FRAMES, channels, height, width)
        if self.frames_last:
            return self.tensor(channels, FRAMES, height, width)
        return self.tensor(channels, height, width)

    def text(self, width: int) -> Tensor:
        """The text embeddings."""
        rows = self.batch * FRAMES if self.text_a_frame else self.batch
        return torch.empty(rows, 1 if self.frames_first else PROMPT_TOKENS, width, device="meta")

    def text_width(self) -> int | None:
        """The width of the text embeddings; None for a model without text."""
        if self.config.get("encoder_hid_dim_type") == "text_proj":
            return int(self.config["encoder_hid_dim"])
        width = self.config.get("cross_attention_dim")
        return int(width[-1] if isinstance(width, list | tuple) else width) if width else None

    def class_labels(self) -> Tensor | None:
        """The class labels, or the embeddings in their place; None for a model without classes."""
        kind = self.config.get("class_embed_type")
        if kind in ("projection", "simple_projection"):
            return self.tensor(self.config["projection_class_embeddings_input_dim"])
        if kind or self.config.get("num_class_embeds"):
            return self.tensor(dtype=torch.int64)
        return None

    def text_time(self) -> dict[str, Tensor]:
        """The additional inputs of SDXL: pooled text embeddings and sizes."""
        time_ids = 6
        pooled = (
            self.config["projection_class_embeddings_input_dim"]
            - time_ids * self.config["addition_time_embed_dim"]
        )
        return {"text_embeds": self.tensor(pooled), "time_ids": self.tensor(time_ids)}


class DiTInputShapes(InputShapes):
    """The shapes of a class-conditional transformer's inputs: latents, timesteps and classes."""

    def inputs(self) -> dict[str, Any]:
        integers = self.tensor(dtype=torch.int64)
        return {"hidden_states": self.sample(), "timestep": integers, "class_labels": integers}


def load_empty(source: str) -> nn.Module:
    """The denoiser that ``source`` describes, on meta. No weights are read.

    Args:
        source: A config.json, the folder of a model or pipeline, or a hub id.

    Raises:
        ModelFileError: There is no configuration of a diffusers model.
    """
    diffusers = installed("diffusers")
    config = read_config(source)
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


def installed(package: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ModelFileError: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelFileError(
            f"{package} cannot be imported: {error}",
            where=f"import {package}",
            remedy="install the optional dependencies: pip install 'fxcache[diffusers]'",
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
    rooted = source.startswith((".", "~")) or path.is_absolute()
    nested = source.count("/") > 1 or ("/" in source and path.parent.is_dir())
    if (rooted or nested) and not path.exists():
        raise ModelFileError(
            "there is no such file or folder",
            where=source,
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
