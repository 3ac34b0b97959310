"""Datasets made here: again by the official recipe, or jdp's own; one recipe a file."""

from jdp.data.recipes import maze2d, ogbench, scenes
from jdp.data.recipes.recipe import Making, Recipe, made, path_of

_RECIPES = (maze2d.recipe, ogbench.recipe, scenes.recipe)
NAMES = maze2d.NAMES + ogbench.NAMES + scenes.NAMES


def find(name: str) -> Recipe | None:
    """The recipe of the dataset with this full name; None where there is none."""
    return next((found for recipe in _RECIPES if (found := recipe(name)) is not None), None)


__all__ = ["NAMES", "Making", "Recipe", "find", "made", "path_of"]
