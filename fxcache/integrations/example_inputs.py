"""Example inputs of a diffusers model, from its configuration."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import tree_map_only
from fxcache.errors import ConfigError

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
