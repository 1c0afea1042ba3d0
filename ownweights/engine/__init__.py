"""Running students: batching, the process that does it, and completers for it.

Asking is free of torch; the names that answer (`BatchEngine`, `EngineThread`) load it. All are
loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.core.lazy import lazy_names

if TYPE_CHECKING:
    from ownweights.engine.batch import BatchEngine, answer_all
    from ownweights.engine.client import EngineProcess
    from ownweights.engine.completer import EngineCompleter
    from ownweights.engine.local import EngineThread

__all__ = ["BatchEngine", "EngineCompleter", "EngineProcess", "EngineThread", "answer_all"]

__getattr__ = lazy_names(
    __name__,
    {
        "BatchEngine": "batch",
        "EngineCompleter": "completer",
        "EngineProcess": "client",
        "EngineThread": "local",
        "answer_all": "batch",
    },
)
