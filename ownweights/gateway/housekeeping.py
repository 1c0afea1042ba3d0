"""Take out of the store what is older than own.toml keeps, while serving.

In: the days that bodies and rows are kept. Out: nothing; what was taken out is logged in numbers.
Invariants: nothing is taken out where nothing is set
(test_housekeeping_rests_where_nothing_is_set); a store that cannot be written now is tried again
later and stops nobody (test_housekeeping_survives_a_store_that_fails); an end waits for a page of
rows at most, and the rest is taken out another time (test_prune_once_ends_when_the_gateway_does).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from ownweights.core.errors import OwnError
from ownweights.core.project import Project
from ownweights.gateway.settings import GatewaySettings
from ownweights.traffic.store import TrafficStore

log = logging.getLogger("ownweights.gateway")
EVERY_S = 3600.0
FIRST_S = 30.0  # after the start, which it should not slow down


class Housekeeping:
    """Prunes now and then, in a thread of its own."""

    def __init__(self, project: Project, settings: GatewaySettings) -> None:
        self._project, self.settings = project, settings
        self._task: asyncio.Task[None] | None = None
        self._is_ended = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._keep_house())

    async def close(self) -> None:
        """End; what is under way in its thread ends with its page of rows."""
        self._is_ended.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_house(self) -> None:
        await asyncio.sleep(FIRST_S)
        while True:
            if any(self.settings.kept_days):
                kept_days, is_ended = self.settings.kept_days, self._is_ended.is_set
                await asyncio.to_thread(prune_once, self._project, kept_days, is_ended=is_ended)
            await asyncio.sleep(EVERY_S)


class _Ended(Exception):
    """The gateway ends before all is taken out."""


def prune_once(
    project: Project,
    kept_days: tuple[float | None, float | None],
    *,
    is_ended: Callable[[], bool] = lambda: False,
) -> None:
    """Take out what is too old now; `kept_days` of bodies and of rows."""
    from ownweights.traffic.retention import prune

    def look(*progress: object) -> None:
        if is_ended():
            raise _Ended

    bodies, rows = kept_days
    try:
        with TrafficStore.open(project, create=False) as store:
            report = prune(
                store, time.time(), keep_bodies_days=bodies, keep_metadata_days=rows,
                on_progress=look,
            )  # fmt: skip
    except _Ended:
        return
    except Exception as error:  # another time it may be possible
        what = error.what if isinstance(error, OwnError) else type(error).__name__
        log.warning("records that are too old could not be taken out: %s", what)
        return
    log.info("taken out for their age: %d records, bodies of %d", report.records, report.bodies)
