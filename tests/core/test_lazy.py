"""Names of packages that are loaded when they are asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ownweights.core.lazy import lazy_names

PACKAGES = ("dataset", "engine", "teacher", "traffic", "verdict", "verdict.confidence",
            "verdict.drift")  # fmt: skip


@pytest.mark.parametrize("name", PACKAGES)
def test_lazy_names_are_all_there(name: str) -> None:
    package = importlib.import_module(f"ownweights.{name}")
    for public in package.__all__:
        assert getattr(package, public) is not None


@pytest.mark.parametrize("name", PACKAGES)
def test_lazy_names_are_no_modules(name: str) -> None:
    package = importlib.import_module(f"ownweights.{name}")
    assert package.__file__ is not None
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    assert not modules & set(package.__all__)


def test_lazy_names_say_what_is_not_there() -> None:
    load = lazy_names("ownweights.traffic", {"import_file": "importer"})
    assert load("import_file").__name__ == "import_file"
    with pytest.raises(AttributeError, match=r"'ownweights\.traffic' has no attribute 'nothing'"):
        load("nothing")


def test_gateway_starts_without_what_it_may_never_need() -> None:
    code = (
        "import sys, ownweights.cli.main, ownweights.cli.serve, ownweights.gateway.run\n"
        "print([m for m in ('torch', 'scipy', 'numpy', 'httpx', 'rich', 'jinja2')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
