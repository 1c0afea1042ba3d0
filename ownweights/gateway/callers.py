"""Who is asking, and what they may spend: the operator's key, or a caller's own.

In: a request's headers. Out: whether students may answer it, and whether it may go to a teacher on
the operator's account. Invariants: without a key of the gateway, students answer on loopback alone
(test_gateway_key_opens_students_beyond_loopback); nobody spends the operator's key but who may ask
students (test_gateway_operators_key_is_spent_only_by_who_may).
"""

from __future__ import annotations

import hmac

from ownweights.gateway.settings import GatewaySettings, Upstream, key_from
from ownweights.teacher.asgi import HttpError, Scope, header
from ownweights.teacher.serving import is_loopback


class Callers:
    """What the callers of one gateway may do."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._is_local = is_loopback(settings.host)
        self._key = key_from(settings.key_env, "gateway") if settings.key_env else None

    def may_ask_students(self, scope: Scope) -> bool:
        """Whether a caller may be answered by students."""
        if self._key is None:
            return self._is_local
        shown = (header(scope, b"authorization") or "").removeprefix("Bearer ").strip()
        return hmac.compare_digest(shown.encode(), self._key.encode())

    def check(self, scope: Scope, upstream: Upstream) -> None:
        """HttpError 401 for who may not spend the operator's key."""
        if upstream.key_env and not self.may_ask_students(scope):
            what = "this gateway answers for its operator only: send the gateway's key"
            raise HttpError(401, what, code="invalid_api_key")
