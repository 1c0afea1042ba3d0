"""The rented model: a client for it, its wire dialects, and a stand-in that replays what it said.

Import what you need from the files: `client` loads an HTTP client, `replay` and `serving` a server;
`dialect` turns chat into Anthropic's Messages and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ownweights.teacher.client import TeacherClient
    from ownweights.teacher.replay import ReplayTeacher, serve_replay

__all__ = ["ReplayTeacher", "TeacherClient", "serve_replay"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name == "TeacherClient":
        from ownweights.teacher.client import TeacherClient

        return TeacherClient
    if name in ("ReplayTeacher", "serve_replay"):
        from ownweights.teacher import replay

        return getattr(replay, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
