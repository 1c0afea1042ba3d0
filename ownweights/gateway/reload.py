"""Take up a changed own.toml while serving, whole or not at all.

In: the file's path, and whoever reads and checks it. Out: the new settings, handed on in one step.
Invariants: a file that cannot be read or says what cannot be changes nothing, and why is told
(test_gateway_keeps_its_settings_when_the_file_breaks), nor does a file that is gone or half
written (test_reloader_waits_for_a_file_that_is_being_written); a file that did not change is not
read, unless someone asks for it (test_gateway_reloads_at_once_on_sighup).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from ownweights.core.errors import OwnError
from ownweights.gateway.settings import GatewaySettings

log = logging.getLogger("ownweights.gateway")
LOOK_S = 0.4  # two looks and the reading take less than the second that is promised
_Stamp = tuple[int, int, int] | None


class Reloader:
    """Looks at a file now and then; `fault` says why its newest content was not taken up."""

    def __init__(
        self,
        path: Path,
        load: Callable[[], GatewaySettings] | None,
        take_up: Callable[[GatewaySettings], None],
    ) -> None:
        self._path, self._load, self._take_up = path, load, take_up
        self._seen = self._latest = _stamp(path)
        self._is_file = self._seen is not None  # once there is one, its absence is a fault
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self.fault = ""

    def hurry(self) -> None:
        """Read the file now, whether or not it has changed."""
        self._hurry.set()

    def start(self) -> None:
        """Begin to look."""
        if self._load is not None:
            self._task = asyncio.ensure_future(self._watch(self._load))

    async def close(self) -> None:
        """End looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self, load: Callable[[], GatewaySettings]) -> None:
        while True:
            is_hurried = await self._next_look()
            stamp, before = _stamp(self._path), self._latest
            self._latest = stamp
            # what changed since the last look may be half written still: an empty file is settings
            if not is_hurried and (stamp == self._seen or stamp != before):
                continue
            try:
                if stamp is None and self._is_file:
                    raise OwnError("the file is gone")
                settings = await asyncio.to_thread(_checked, load)
                if _stamp(self._path) != stamp:  # written while it was read
                    continue
                self._take_up(settings)
            except Exception as error:  # nothing may end this task: no file would be read again
                self.fault = error.what if isinstance(error, OwnError) else type(error).__name__
                log.error("own.toml is not taken up, the settings before it stay: %s", self.fault)
            else:
                self.fault = ""
                log.warning("own.toml was read anew and is in force")
            self._seen, self._is_file = stamp, self._is_file or stamp is not None

    async def _next_look(self) -> bool:
        """Wait until it is time to look; whether someone could not wait."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._hurry.wait()
        except TimeoutError:
            return False
        self._hurry.clear()
        return True


def _checked(load: Callable[[], GatewaySettings]) -> GatewaySettings:
    settings = load()
    settings.check_keys()
    return settings


def _stamp(path: Path) -> _Stamp:
    """What changes when a file does; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
