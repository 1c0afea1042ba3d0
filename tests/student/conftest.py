"""One thread, for the models are tiny; and the recipe, which lies beside the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ownweights.student.base import BaseRecipe, read_recipe

RECIPE_FILE = Path(__file__).parents[2] / "recipes" / "seedling" / "recipe.toml"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other cost more than they compute
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shipped_recipe() -> BaseRecipe:
    """The recipe, or a skip where only the package and its tests are at hand."""
    if not RECIPE_FILE.is_file():
        pytest.skip("recipes are not part of the wheel")
    return read_recipe(RECIPE_FILE)
