"""Running students: batching, the process that does it, and completers for it.

Asking is free of torch; the names that answer (`BatchEngine`, `EngineThread`) load it when first
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ownweights.engine.client import EngineProcess
from ownweights.engine.completer import EngineCompleter

if TYPE_CHECKING:
    from ownweights.engine.batch import BatchEngine, answer_all
    from ownweights.engine.local import EngineThread

__all__ = ["BatchEngine", "EngineCompleter", "EngineProcess", "EngineThread", "answer_all"]

_LAZY = {"BatchEngine": "batch", "EngineThread": "local", "answer_all": "batch"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
