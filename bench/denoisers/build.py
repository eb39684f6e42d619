"""The denoiser classes of diffusers, and small models of them."""

import importlib
import pkgutil

from diffusers import ModelMixin
from diffusers.models import transformers, unets
from torch import nn

from bench.denoisers.recipe import Recipe
from bench.seeding import seeded


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
