"""A key of the gateway's own: what it may do, and how a caller shows it.

In: a caller's headers, or what the operator asks for. Out: the secret that is shown, its hash, a
Key. A secret is `own-` and 256 random bits; only its SHA-256 is stored. A slow, salted hash guards
passwords, which can be guessed one by one; 2^256 secrets cannot, so a fast hash gives away nothing
either, and costs a request a microsecond instead of a tenth of a second. Invariants: the secret is
nowhere but in what `new_key` returns (test_key_is_stored_as_a_hash_alone); whatever may be a
secret of ours is recognised in every header that carries keys (test_shown_secret_finds_every_way).
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

PREFIX = "own-"
KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
Per = Literal["day", "month", "total"]
PERIODS: tuple[Per, ...] = ("day", "month", "total")
_SECRET = re.compile(rb"own-[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_ID_BYTES = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may do. None is no limit; without workloads, every workload."""

    workloads: tuple[str, ...] = ()
    budget_usd: float | None = None
    budget_per: Per = "month"
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    is_recorded: bool = True
    may_ask_students: bool = True
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as it is stored."""

    id: str
    name: str
    hash: str
    made_at: float
    limits: Limits = field(default_factory=Limits)
    revoked_at: float | None = None

    def state(self, now_s: float) -> str:
        """`live`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        expires_at = self.limits.expires_at
        return "live" if expires_at is None or now_s < expires_at else "expired"


def new_key(name: str, limits: Limits) -> tuple[str, Key]:
    """A new secret, which is kept nowhere, and its Key."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key_id = f"key-{secrets.token_hex(_ID_BYTES)}"
    return secret, Key(key_id, name, hash_of(secret), time.time(), limits)


def hash_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def bare_key(value: bytes) -> bytes:
    """The key in a header's value, without the word `Bearer` before it."""
    scheme, _, rest = value.strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else value.strip()


def shown_secret(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The secret of ours that a caller shows, whole or not; None where it shows none."""
    for name, value in headers:
        if name in KEY_HEADERS and (shown := bare_key(value)).startswith(PREFIX.encode()):
            return shown.decode("latin-1")
    return None


def holds_secret(text: bytes) -> bool:
    """Whether a secret of ours may stand anywhere in a text."""
    return b"own-" in text and _SECRET.search(text) is not None


def day_of(at: float) -> str:
    """The day of a moment, in UTC."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def first_day(per: Per, day: str) -> str:
    """The first day of the period that a day lies in; days are compared as text."""
    if per == "total":
        return ""
    return day if per == "day" else f"{day[:7]}-01"


def next_start(per: Per, day: str) -> str | None:
    """The day on which the next period begins; None where there is no other."""
    if per == "total":
        return None
    today = date.fromisoformat(day)
    if per == "day":
        return (today + timedelta(days=1)).isoformat()
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1).isoformat()
