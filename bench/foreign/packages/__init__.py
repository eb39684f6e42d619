"""The recipes of models, one file a package."""

import importlib
import pkgutil

from bench.foreign.recipe import ForeignRecipe


def recipes() -> dict[str, ForeignRecipe]:
    """Return all recipes by their name."""
    found: dict[str, ForeignRecipe] = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        found |= {recipe.name: recipe for recipe in module.RECIPES}
    return dict(sorted(found.items()))
