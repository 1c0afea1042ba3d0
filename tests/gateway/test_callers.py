"""Who is asking, where keys are looked up while they are made."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from ownweights.core.project import Project
from ownweights.gateway import GatewaySettings
from ownweights.gateway.callers import Callers
from ownweights.gateway.keys import Key, KeyRing, KeyStore, Limits, new_key
from tests.gateway.harness import WAIT_S

UNKNOWN = "own-" + "A" * 43


class HeldRing(KeyRing):
    """A ring that says only when it may that a look is over, and looks when it is asked alone."""

    def __init__(self, project: Project) -> None:
        super().__init__(project, look_s=3600.0)
        self.has_read, self.may_say = threading.Event(), threading.Event()

    def look(self, timeout_s: float = WAIT_S) -> bool:
        found = super().look(timeout_s)
        self.has_read.set()
        return found and self.may_say.wait(WAIT_S)


def kept(project: Project, name: str) -> tuple[str, Key]:
    secret, key = new_key(name, Limits())
    with KeyStore.open(project) as store:
        store.add(key)
    return secret, key


def test_callers_know_a_key_made_during_a_look(tmp_path: Path) -> None:
    """Whoever asks while the keys are read waits for the next look, which sees its key."""
    project = Project(tmp_path)
    kept(project, "bob")
    ring = HeldRing(project)
    ring.may_say.set()
    ring.start()
    ring.has_read.clear()
    ring.may_say.clear()
    callers = Callers(GatewaySettings(), ring)

    async def of(secret: str) -> Key | None:
        shown = (b"authorization", f"Bearer {secret}".encode())
        return (await callers.of({"headers": [shown]})).key

    async def ask() -> tuple[Key | None, Key]:
        guessing = asyncio.ensure_future(of(UNKNOWN))
        assert await asyncio.to_thread(ring.has_read.wait, WAIT_S)
        secret, key = await asyncio.to_thread(kept, project, "alice")
        asking = asyncio.ensure_future(of(secret))
        await asyncio.sleep(0)  # it waits for the look that is under way
        ring.may_say.set()
        await asyncio.gather(guessing, return_exceptions=True)
        return await asking, key

    try:
        found, key = asyncio.run(ask())
    finally:
        ring.close()
    assert found == key
