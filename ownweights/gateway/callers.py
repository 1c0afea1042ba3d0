"""Who is asking: the operator, the holder of a key of ours, or anybody with a provider's key.

In: a request's headers and address. Out: a Caller, who may ask students, and whose request may go
to a teacher on the operator's account, or may not. Invariants: without a key of the gateway,
students answer on loopback alone (test_gateway_key_opens_students_beyond_loopback); nobody spends
the operator's key but who may (test_gateway_operators_key_is_spent_only_by_who_may), at a stand-in
neither (test_failover_spends_the_operators_key_only_for_who_may); a key of ours is never taken for
a provider's (test_gateway_virtual_key_never_leaves).
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ownweights.gateway.keys.key import (
    KEY_HEADERS,
    Key,
    bare_key,
    shown_secret,
)
from ownweights.gateway.keys.ring import KeyRing
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.teacher.asgi import HttpError, Scope
from ownweights.teacher.serving import is_loopback


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. With a `key` of ours, its limits hold; else who is trusted is the operator."""

    is_trusted: bool = False
    key: Key | None = None

    @property
    def may_ask_students(self) -> bool:
        return self.is_trusted if self.key is None else self.key.limits.may_ask_students

    @property
    def is_recorded(self) -> bool:
        return self.key is None or self.key.limits.is_recorded

    def refusal(self, upstream: Upstream) -> HttpError | None:
        """Why this caller's request may not go to a teacher; None where it may."""
        if self.key is not None and not upstream.key_env:
            what = (
                f"teacher {upstream.name!r} has no key of its operator (key_env), and the gateway's"
                " keys are not passed on: send the provider's own key"
            )
            return _unauthorized(what)
        if self.key is None and upstream.key_env and not self.is_trusted:
            return _unauthorized("this gateway answers for its operator only: send a key of its")
        return None


class Callers:
    """Knows the callers of one gateway."""

    def __init__(self, settings: GatewaySettings, ring: KeyRing) -> None:
        self._ring = ring
        self._looking: asyncio.Future[bool] | None = None
        self.follow(settings)

    def follow(self, settings: GatewaySettings) -> None:
        """Go on with other settings."""
        self._is_local = is_loopback(settings.host)
        self._key = settings.key()

    async def of(self, scope: Scope) -> Caller:
        """The caller of a request.

        Raises: HttpError 401 for a key of ours that is unknown, revoked or expired, 503 where keys
        cannot be read
        """
        key = self._key
        is_trusted = self._is_local if key is None else _shows(scope["headers"], key)
        secret = None if key and is_trusted else shown_secret(scope["headers"])
        if secret is None:
            return Caller(is_trusted)
        found = self._ring.find(secret)
        if found is None:  # it may have been made a moment ago
            await self._look()
            found = self._ring.find(secret)
        if found is None and self._ring.fault:
            what = "the gateway's keys cannot be read just now"
            raise HttpError(503, what, code="keys_unavailable", kind="server_error")
        state = "unknown" if found is None else found.state(time.time())
        if state != "live":
            raise _unauthorized(f"the key shown is {state}")
        return Caller(key=found)

    async def _look(self) -> None:
        """Read the keys anew: once for all who wait, so that guessing keeps one thread busy."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._ring.look))
        await asyncio.shield(self._looking)


def _shows(headers: Iterable[tuple[bytes, bytes]], key: str) -> bool:
    shown = [bare_key(value) for name, value in headers if name in KEY_HEADERS]
    return any(hmac.compare_digest(one, key.encode()) for one in shown)


def _unauthorized(what: str) -> HttpError:
    return HttpError(401, what, code="invalid_api_key")
