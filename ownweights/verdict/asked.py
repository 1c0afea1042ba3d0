"""What is read of a dataset's example, by how much of it a reader needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Answered(Protocol):
    """What a judge needs: the request, and what the teacher answered to it."""

    @property
    def id(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def request(self) -> Mapping[str, Any]: ...
    @property
    def references(self) -> Sequence[str]: ...


class Told(Answered, Protocol):
    """The same, with the answer recorded for this very request."""

    @property
    def target(self) -> str: ...


class Asked(Told, Protocol):
    """What a verdict needs: also what the student is sent, and who answered."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def model(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
