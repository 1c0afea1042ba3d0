"""The rented model: a client for it, its wire dialects, and a stand-in that replays what it said.

Import what you need from the files: `client` loads an HTTP client, `replay` and `serving` a server;
`dialect` turns chat into Anthropic's Messages and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownweights.core.lazy import lazy_names

if TYPE_CHECKING:
    from ownweights.teacher.client import TeacherClient
    from ownweights.teacher.replay import ReplayTeacher, serve_replay

__all__ = ["ReplayTeacher", "TeacherClient", "serve_replay"]

__getattr__ = lazy_names(
    __name__, {"TeacherClient": "client", "ReplayTeacher": "replay", "serve_replay": "replay"}
)
