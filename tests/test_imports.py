"""Everything but training and serving works without torch, and nothing loads it by surprise."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import ownweights

TORCH_FREE = (
    "core", "lineage", "teacher", "traffic", "dataset", "verdict", "route", "gateway", "cli",
)  # fmt: skip
TORCH_FREE_MODULES = ("ownweights", "ownweights.engine", "ownweights.engine.client")
TRAIN_EXTRA = ("torch", "safetensors", "tokenizers", "transformers", "peft")

IMPORT_WITHOUT = """
import importlib, sys
for name in {absent!r}:
    sys.modules[name] = None  # as if it were not installed
for name in {modules!r}:
    importlib.import_module(name)
"""


def modules_of(package: str) -> list[str]:
    """Names of every module below `ownweights.<package>`."""
    module = __import__(f"ownweights.{package}", fromlist=["__path__"])
    names = [info.name for info in pkgutil.walk_packages(module.__path__, f"{module.__name__}.")]
    return [module.__name__, *(name for name in names if not name.endswith("__main__"))]


def import_without(absent: tuple[str, ...], modules: list[str]) -> str:
    """What goes wrong when `modules` are imported where `absent` are not installed."""
    code = IMPORT_WITHOUT.format(absent=absent, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    return done.stderr


@pytest.mark.parametrize("package", TORCH_FREE)
def test_package_imports_without_the_train_extra(package: str) -> None:
    assert import_without(TRAIN_EXTRA, modules_of(package)) == ""


@pytest.mark.parametrize("module", TORCH_FREE_MODULES)
def test_module_imports_without_the_train_extra(module: str) -> None:
    assert import_without(TRAIN_EXTRA, [module]) == ""


def test_bare_import_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import ownweights; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["ownweights"]
    assert ownweights.__version__.count(".") == 2
