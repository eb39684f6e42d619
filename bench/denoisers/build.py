"""The denoiser classes of diffusers, and small models of them."""

import importlib
import pkgutil
from collections.abc import Callable

import torch
from diffusers import ModelMixin
from diffusers.models import transformers, unets
from torch import nn

from bench.denoisers.recipe import Recipe


def classes() -> dict[str, type[nn.Module]]:
    """Return the classes in diffusers.models.unets and diffusers.models.transformers by name."""
    found: dict[str, type[nn.Module]] = {}
    for package in (unets, transformers):
        for entry in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{entry.name}")
            for name, kind in vars(module).items():
                defined = isinstance(kind, type) and kind.__module__ == module.__name__
                if defined and issubclass(kind, ModelMixin):
                    found[name] = kind
    return found


def tiny(recipe: Recipe) -> nn.Module:
    """Build a small model, see ``seeded``."""
    return seeded(lambda: classes()[recipe.kind](**recipe.tiny))


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model with seeded weights, in eval mode. All its blocks have an effect."""
    torch.manual_seed(0)
    model = build().eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif not weight.any():
            nn.init.normal_(weight, std=0.02)
    return model
