"""Make every decision again from the log, and say where the log says something else.

In: the metadata under which the gateway recorded a request, and the routes it names. Out: whether
the student was drawn and sure enough, as the route would decide it now, against what was recorded.
Invariant: what the gateway recorded is what replaying gives (test_gateway_decisions_are_replayed).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ownweights.core.errors import ArtefactError
from ownweights.route.decide import BELOW_THRESHOLD, SERVED
from ownweights.route.rollout import Standing, is_drawn
from ownweights.route.route import Route

LoadRoute = Callable[[str], Route]


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log holds of one request that had a route."""

    request_id: str
    session: str | None
    own: Mapping[str, Any]  # the gateway's part of the metadata


@dataclass(frozen=True, slots=True)
class Replay:
    """How many decisions were made again, and those that came out otherwise."""

    num_same: int
    differences: tuple[str, ...]
    num_left_out: int  # not decided by a rule: forced, ineligible, or a student that failed


def replay(logged: Iterable[Logged], load_route: LoadRoute) -> Replay:
    """Decide every request again that a route decided."""
    routes: dict[str, Route] = {}
    num_same = num_left_out = 0
    differences: list[str] = []
    for one in logged:
        if one.own.get("reason") not in (SERVED, BELOW_THRESHOLD, "shadow", "canary"):
            num_left_out += 1
            continue
        found = _difference(one, routes, load_route)
        if found is None:
            num_same += 1
        else:
            differences.append(f"{one.request_id}: {found}")
    return Replay(num_same, tuple(differences), num_left_out)


def _difference(one: Logged, routes: dict[str, Route], load_route: LoadRoute) -> str | None:
    route_id = str(one.own.get("route"))
    try:
        if route_id not in routes:
            routes[route_id] = load_route(route_id)
    except ArtefactError as error:
        return f"its route cannot be read: {error}"
    again = decide_again(routes[route_id], one)
    if again == one.own["reason"]:
        return None
    return f"the log says {one.own['reason']!r}, its route decides {again!r}"


def decide_again(route: Route, one: Logged) -> str:
    """The reason that a route gives for a request, from what was logged of it."""
    stage, share = one.own.get("stage", "served"), one.own.get("share", 1.0)
    standing = dataclasses.replace(Standing(route.id), stage=stage, share=share)
    if not is_drawn(standing, one.session, one.request_id):
        return standing.stage
    score = one.own.get("score")
    is_sure = isinstance(score, int | float) and math.isfinite(score) and score >= route.threshold
    return SERVED if is_sure else BELOW_THRESHOLD
