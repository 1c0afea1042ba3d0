"""Names of a package that are loaded when they are first asked for.

In: the package's name, and the module of each name. Out: a `__getattr__` for the package. A name
must not be that of a module beside it, which would take its place once it is loaded
(test_lazy_names_are_no_modules).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, module_of: Mapping[str, str]) -> Callable[[str], Any]:
    """What gives a package's names, each from its module: `__getattr__ = lazy_names(...)`."""

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return load
