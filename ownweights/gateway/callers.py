"""Who is asking: the operator, the holder of a key of ours, or anybody with a provider's key.

In: a request's headers and address. Out: a Caller, who may ask students, and whose request may go
to a teacher on the operator's account, or may not. Invariants: without a key of the gateway,
students answer on loopback alone (test_gateway_key_opens_students_beyond_loopback); nobody spends
the operator's key but who may (test_gateway_operators_key_is_spent_only_by_who_may), at a stand-in
neither (test_failover_spends_the_operators_key_only_for_who_may); a key of ours is never taken for
a provider's (test_gateway_virtual_key_never_leaves), nor the gateway's
(test_gateway_its_own_key_never_leaves); a key that was made before a request is known to it
(test_callers_know_a_key_made_during_a_look).
"""

from __future__ import annotations

import asyncio
import hmac
import time
from dataclasses import dataclass

from ownweights.gateway.keys.key import (
    KEY_HEADERS,
    Key,
    bare_key,
    shown_secret,
)
from ownweights.gateway.keys.ring import KeyRing
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.teacher.asgi import Headers, HttpError, Scope
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
        """The caller of a request, from whose headers the gateway's own key is taken.

        Raises: HttpError 401 for a key of ours that is unknown, revoked or expired, 503 where keys
        cannot be read
        """
        key = self._key
        is_trusted = self._is_local if key is None else _takes(scope, key)
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
        if self._looking is not None and not self._looking.done():
            await asyncio.shield(self._looking)  # it may have read what was there before
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._ring.look))
        await asyncio.shield(self._looking)


def _takes(scope: Scope, key: str) -> bool:
    """Whether the headers show this key; it is taken out of them, for it is nobody else's."""
    headers: Headers = scope["headers"]
    others = [pair for pair in headers if not _is_shown(pair, key.encode())]
    is_shown = len(others) < len(headers)
    scope["headers"] = others
    return is_shown


def _is_shown(pair: tuple[bytes, bytes], key: bytes) -> bool:
    return pair[0] in KEY_HEADERS and hmac.compare_digest(bare_key(pair[1]), key)


def _unauthorized(what: str) -> HttpError:
    return HttpError(401, what, code="invalid_api_key")
