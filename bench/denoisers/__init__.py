"""Every denoiser that diffusers ships: how to build it, and how pipelines call it.

Each module in ``FAMILIES`` holds the recipes of one family of models. The recipe of a new class is
an entry in ``RECIPES`` there, and a function above it that makes the inputs of a call. A model that
is the only one of its family goes into ``images`` or ``videos``; a new family is a new module, and
its name in ``FAMILIES``.
"""

from bench.denoisers import (
    anyflow,
    audio,
    bria,
    cogvideox,
    cogview,
    cosmos,
    dit,
    flux,
    hunyuan,
    images,
    joy_image,
    kandinsky,
    ltx,
    lumina,
    proteins,
    qwen_image,
    sana,
    unets,
    video_unets,
    videos,
    wan,
)
from bench.denoisers.build import classes, tiny
from bench.denoisers.recipe import Recipe

__all__ = ["FAMILIES", "RECIPES", "classes", "tiny"]

FAMILIES = (
    anyflow,
    audio,
    bria,
    cogvideox,
    cogview,
    cosmos,
    dit,
    flux,
    hunyuan,
    images,
    joy_image,
    kandinsky,
    ltx,
    lumina,
    proteins,
    qwen_image,
    sana,
    unets,
    video_unets,
    videos,
    wan,
)

# Recipes by the name of the class.
RECIPES: dict[str, Recipe] = {
    recipe.kind: recipe for family in FAMILIES for recipe in family.RECIPES
}
