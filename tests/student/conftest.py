"""The recipe of the embedded base, which lies beside the package and not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.student.base import BaseRecipe, read_recipe

RECIPE_FILE = Path(__file__).parents[2] / "recipes" / "seedling" / "recipe.toml"


@pytest.fixture(scope="session")
def shipped_recipe() -> BaseRecipe:
    """The recipe, or a skip where only the package and its tests are at hand."""
    if not RECIPE_FILE.is_file():
        pytest.skip("recipes are not part of the wheel")
    return read_recipe(RECIPE_FILE)
