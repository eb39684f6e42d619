"""The recipes of pipelines, one file a family of models."""

import importlib
import pkgutil

from bench.pipelines.recipe import PipelineRecipe


def recipes() -> dict[str, PipelineRecipe]:
    """Return all recipes by the name of the pipeline class."""
    found: dict[str, PipelineRecipe] = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        found |= {recipe.kind: recipe for recipe in module.RECIPES}
    return dict(sorted(found.items()))
