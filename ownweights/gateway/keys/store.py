"""The gateway's keys and their spend in `own.db`, for every gateway and the command line.

In: keys, limits, sums. Out: the same, as last committed. A key is never deleted, so that its id on
a record goes on meaning something; a name is free again once its key is revoked. Invariants: two
live keys never share a name (test_key_store_refuses_a_name_that_is_taken); a change is seen by
whoever compares `stamp` (test_key_store_stamp_changes_with_every_change).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from ownweights.core.database import BUSY_TIMEOUT_S, Database, open_database
from ownweights.core.errors import UsageError
from ownweights.core.project import Project
from ownweights.gateway.keys.key import Key, Limits
from ownweights.gateway.keys.tally import Place, Spent

_LIMITS = (
    "workloads", "budget_usd", "budget_per", "requests_per_min", "tokens_per_min", "recorded",
    "students", "expires_at",
)  # fmt: skip
_SUMS = ("requests", "unpriced", "tokens", "nano_usd", "estimated_nano_usd")


class KeyStore:
    """An open store of keys, for one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, project: Project, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> KeyStore:
        """Open the project's keys; StoreError when they cannot be read."""
        return cls(open_database(project.database, busy_timeout_s=busy_timeout_s))

    def add(self, key: Key) -> None:
        """Keep a new key.

        Raises: UsageError where another live key has its name
        """
        row = (key.id, key.name, key.hash, key.made_at, *_limit_values(key.limits), 1)
        columns = ", ".join(("id", "name", "hash", "made_at", *_LIMITS, "version"))
        with self._database.transaction():
            if self.find(key.name) is not None:
                raise UsageError(
                    f"there is a key named {key.name!r} already",
                    hint=f"own key set {key.name} changes it, own key revoke {key.name} ends it",
                )
            marks = ", ".join("?" * len(row))
            self._database.execute(f"INSERT INTO key ({columns}) VALUES ({marks})", row)
            self._database.log_event("key added", key.id)

    def change(self, key_id: str, limits: Limits) -> None:
        """Give a key other limits."""
        places = ", ".join(f"{name} = ?" for name in _LIMITS)
        with self._database.transaction():
            self._database.execute(
                f"UPDATE key SET {places}, version = version + 1 WHERE id = ?",
                (*_limit_values(limits), key_id),
            )
            self._database.log_event("key changed", key_id)

    def revoke(self, key_id: str) -> None:
        """End a key for good."""
        with self._database.transaction():
            self._database.execute(
                "UPDATE key SET revoked_at = ?, version = version + 1"
                " WHERE id = ? AND revoked_at IS NULL",
                (time.time(), key_id),
            )
            self._database.log_event("key revoked", key_id)

    def find(self, name: str) -> Key | None:
        """The key of this name or id that is not revoked."""
        rows = self._keys("WHERE (name = ? OR id = ?) AND revoked_at IS NULL", (name, name))
        return rows[0] if rows else None

    def every(self) -> list[Key]:
        """Every key, revoked ones too, in the order they were made."""
        return self._keys("", ())

    def stamp(self) -> tuple[int, int]:
        """What changes with every change of any key."""
        ((count, versions),) = self._database.query(
            "SELECT count(*), coalesce(sum(version), 0) FROM key"
        )
        return int(count), int(versions)

    def write_spend(self, writer: str, rows: Mapping[Place, Spent]) -> None:
        """Write rows of one gateway process, each as it stands."""
        sets = ", ".join(f"{name} = excluded.{name}" for name in _SUMS)
        with self._database.transaction():
            self._database.execute_many(
                f"INSERT INTO spend (key_id, day, writer, {', '.join(_SUMS)})"
                f" VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                f" ON CONFLICT (day, key_id, writer) DO UPDATE SET {sets}",
                [(*place, writer, *astuple(spent)) for place, spent in rows.items()],
            )

    def read_spend(self, *, first_day: str = "", but: str = "") -> list[tuple[str, str, Spent]]:
        """(key id, day, what was spent) from a day on, by all gateways but one."""
        sums = ", ".join(f"sum({name})" for name in _SUMS)
        rows = self._database.query(
            f"SELECT key_id, day, {sums} FROM spend WHERE day >= ? AND writer <> ?"
            " GROUP BY key_id, day ORDER BY day, key_id",
            (first_day, but),
        )
        return [(key_id, day, Spent(*map(int, counts))) for key_id, day, *counts in rows]

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _keys(self, where: str, params: Sequence[Any]) -> list[Key]:
        columns = ", ".join(("id", "name", "hash", "made_at", "revoked_at", *_LIMITS))
        rows = self._database.query(
            f"SELECT {columns} FROM key {where} ORDER BY made_at, id", params
        )
        return [_key(row) for row in rows]


def _key(row: Sequence[Any]) -> Key:
    key_id, name, digest, made_at, revoked_at, workloads, *limits = row
    usd, per, requests, tokens, recorded, students, expires_at = limits
    held = Limits(
        tuple(json.loads(workloads)), usd, per, requests, tokens, bool(recorded), bool(students),
        expires_at,
    )  # fmt: skip
    return Key(key_id, name, digest, made_at, held, revoked_at)


def _limit_values(limits: Limits) -> tuple[Any, ...]:
    workloads, *rest = astuple(limits)
    usd, per, requests, tokens, recorded, students, expires_at = rest
    return (json.dumps(workloads), usd, per, requests, tokens, int(recorded), int(students),
            expires_at)  # fmt: skip
