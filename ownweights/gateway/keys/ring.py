"""The keys in a gateway's memory, and what they spend on its way to the database.

In: secrets that callers show, what answers spent. Out: the key, as it stands in the database within
`LOOK_S`; rows of spend, written as often. One thread does both, so that no answer waits for the
database; a crash loses what was spent since its last look. Invariants: a revoked key is refused
within a moment (test_gateway_refuses_a_key_soon_after_it_is_revoked); while the database cannot be
read, the keys last read stay in force and what is spent waits (test_ring_outlives_a_broken_store);
an end in good order loses nothing (test_ring_writes_what_was_spent_when_it_ends).
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ownweights.core.database import has_database
from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.gateway.keys.key import Key, hash_of
from ownweights.gateway.keys.store import KeyStore
from ownweights.gateway.keys.tally import Tally

LOOK_S = 0.5
BUSY_S = 0.5  # how long the database may be locked until the next look
WAIT_S = 2.0  # for a look that a caller waits for

log = logging.getLogger("ownweights.gateway")


class KeyRing:
    """Keys by the hash of their secret, read again every `look_s`."""

    def __init__(
        self,
        project: Project,
        *,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._project, self._look_s, self._clock = project, look_s, clock
        self.tally = Tally()
        self.writer = secrets.token_hex(8)
        self._by_hash: dict[str, Key] = {}
        self._stamp: tuple[int, int] | None = None
        self._store: KeyStore | None = None
        self._has_history = False
        self._begun, self._done, self._is_closing, self._is_called = 0, 0, False, False
        self._changed = threading.Condition()
        self.fault = ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the keys, and go on reading."""
        self._thread = threading.Thread(target=self._run, name="own-keys", daemon=True)
        self._thread.start()
        self.look()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what was spent, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if unwritten := self.tally.unwritten():
            log.error("what %d keys spent could not be written: %s", len(unwritten), self.fault)

    def find(self, secret: str) -> Key | None:
        """The key of a secret, as it was last read; in every state."""
        digest = hash_of(secret)
        found = self._by_hash.get(digest)
        return found if found and hmac.compare_digest(found.hash, digest) else None

    def look(self, timeout_s: float = WAIT_S) -> bool:
        """Read anew now, for a key that nobody knows yet; false where that took too long.

        However many ask, the database is read once for all of them.
        """
        with self._changed:
            self._is_called = True
            wanted = self._begun + 1  # one under way may have read what was there before
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: self._done >= wanted or self._is_closing, timeout_s
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._is_called, self._look_s)
                self._is_called, is_last = False, self._is_closing
                self._begun += 1
            self._look()
            with self._changed:
                self._done = self._begun
                self._changed.notify_all()
            if is_last:
                break
        self._let_go()

    def _look(self) -> None:
        """Read keys and what was spent elsewhere, write what was spent here."""
        try:
            store = self._opened()
            if store is not None:
                self._read(store)
                self._write(store)
            self._say("")
        except Exception as error:  # nothing may end this thread: keys would never be revoked
            self._say(error.what if isinstance(error, StoreError) else type(error).__name__)
            self._let_go()

    def _let_go(self) -> None:
        """Close the store, so that the next look opens it anew."""
        if self._store is not None:
            with contextlib.suppress(Exception):
                self._store.close()
        self._store = None

    def _opened(self) -> KeyStore | None:
        """The open store; None where there is no database yet, and hence no key."""
        if self._store is None and has_database(self._project.database):
            self._store = KeyStore.open(self._project, busy_timeout_s=BUSY_S)
        return self._store

    def _write(self, store: KeyStore) -> None:
        if rows := self.tally.unwritten():
            store.write_spend(self.writer, rows)
            self.tally.wrote(rows)

    def _read(self, store: KeyStore) -> None:
        stamp = store.stamp()
        if stamp != self._stamp:
            self._by_hash = {key.hash: key for key in store.every()}
            self._stamp = stamp
        if not self._by_hash:
            return
        yesterday = datetime.fromtimestamp(self._clock(), UTC).date() - timedelta(days=1)
        first_day = yesterday.isoformat() if self._has_history else ""
        self.tally.learn(store.read_spend(first_day=first_day, but=self.writer))
        self._has_history = True

    def _say(self, fault: str) -> None:
        if fault and not self.fault:
            what = "keys are not read or their spend not written, those known stay in force: %s"
            log.warning(what, fault)
        elif self.fault and not fault:
            log.warning("keys are read, and their spend is written again")
        self.fault = fault
