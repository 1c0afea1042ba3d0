"""Take out of the store what is older than own.toml keeps, while serving.

In: the days that bodies and rows are kept. Out: nothing; what was taken out is logged in numbers.
Invariants: nothing is taken out where nothing is set
(test_housekeeping_rests_where_nothing_is_set); a store that cannot be written now is tried again
later and stops nobody (test_housekeeping_survives_a_store_that_fails).
"""

from __future__ import annotations

import asyncio
import logging
import time

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

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._keep_house())

    async def close(self) -> None:
        """End; what is under way in its thread is a transaction or two from its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_house(self) -> None:
        await asyncio.sleep(FIRST_S)
        while True:
            if any(self.settings.kept_days):
                await asyncio.to_thread(prune_once, self._project, self.settings.kept_days)
            await asyncio.sleep(EVERY_S)


def prune_once(project: Project, kept_days: tuple[float | None, float | None]) -> None:
    """Take out what is too old now; `kept_days` of bodies and of rows."""
    from ownweights.traffic.retention import prune

    bodies, rows = kept_days
    try:
        with TrafficStore.open(project, create=False) as store:
            report = prune(store, time.time(), keep_bodies_days=bodies, keep_metadata_days=rows)
    except OwnError as error:
        log.warning("records that are too old could not be taken out: %s", error.what)
        return
    log.info("taken out for their age: %d records, bodies of %d", report.records, report.bodies)
