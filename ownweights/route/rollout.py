"""How much of its workload a route has now, which requests are drawn, which answers are audited.

    shadow ──► canary 5 % ──► canary 25 % ──► served          any of them ──► rolled back
    the student is asked,     a share of the sessions         all sessions
    the teacher answers       gets its answers

In: what stands in the active pointer, a route, a request's name and session. Out: whether the
student may answer, and with what chance the answer is audited. Draws are hashes, so that they can
be made again from the log (test_gateway_decisions_are_replayed): a session that was drawn stays
drawn as the share grows (test_draw_keeps_its_sessions_as_the_share_grows).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ownweights.core.errors import InputError

Stage = Literal["shadow", "canary", "served"]
STAGES: tuple[Stage, ...] = get_args(Stage)
CANARY_SHARES = (0.05, 0.25)  # of the sessions, step by step
NEAR_TIMES = 3.0  # as often as others, answers whose score is near the threshold are audited
INCIDENT_TIMES = 2.0  # as often as else, while an incident of drift is open at the teacher
_DRAW_SALT, _AUDIT_SALT = "ownweights-canary-1", "ownweights-audit-1"


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands in the pointer of a workload: the route followed, and how far."""

    route_id: str
    stage: Stage = "served"
    share: float = 1.0  # of the sessions that the student may answer
    is_frozen: bool = False  # goes no step further by itself; an alarm still rolls back
    since: int = 0  # the last audit before it was followed: what came earlier proves nothing now

    def to_text(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_text(cls, text: str, *, where: str) -> Standing:
        """The standing in a pointer's text. Raises: InputError when it is none."""
        try:
            table: Any = json.loads(text)
            standing = cls(**table)
        except (ValueError, TypeError, RecursionError):
            raise InputError("is not the pointer to a route", where=where) from None
        shares = {"shadow": (0.0,), "canary": CANARY_SHARES, "served": (1.0,)}
        is_sound = (
            isinstance(standing.route_id, str)
            and standing.stage in STAGES
            and standing.share in shares[standing.stage]
            and isinstance(standing.is_frozen, bool)
            and type(standing.since) is int
            and standing.since >= 0
        )
        if not is_sound:
            raise InputError(f"no route can stand as {table}", where=where)
        return standing

    def next(self) -> Standing | None:
        """One step further; None where there is none."""
        if self.stage == "served":
            return None
        wider = [share for share in CANARY_SHARES if share > self.share]
        if wider:
            return replace(self, stage="canary", share=wider[0])
        return replace(self, stage="served", share=1.0)


def first_standing(route_id: str, stage: Stage, *, since: int = 0) -> Standing:
    """Where a route begins that is told to begin with `stage`, after audit number `since`."""
    share = {"shadow": 0.0, "canary": CANARY_SHARES[0], "served": 1.0}[stage]
    return Standing(route_id, stage, share, since=since)


def is_drawn(standing: Standing, session: str | None, request_id: str) -> bool:
    """Whether the student may answer this request, as far as the rollout goes."""
    return _lot(_DRAW_SALT, standing.route_id, session or request_id) < standing.share


def audit_chance(
    standing: Standing, audit_frac: float, *, is_near: bool, has_incident: bool = False
) -> float:
    """The chance that an answer of the student is audited: all of them before it is served."""
    if standing.stage != "served":
        return 1.0
    times = (NEAR_TIMES if is_near else 1.0) * (INCIDENT_TIMES if has_incident else 1.0)
    return min(1.0, times * audit_frac)


def is_audited(standing: Standing, request_id: str, chance: float) -> bool:
    """Whether this answer is audited."""
    return _lot(_AUDIT_SALT, standing.route_id, request_id) < chance


def _lot(*words: str) -> float:
    """A number in [0, 1) that these words always draw."""
    data = "\x1f".join(words).encode("utf-8", "surrogatepass")
    lot = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    return math.ldexp(lot >> 11, -53)
