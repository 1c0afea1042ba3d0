"""Standings, draws and audit chances of a rollout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError
from ownweights.route.rollout import (
    CANARY_SHARES,
    STAGES,
    Standing,
    audit_chance,
    first_standing,
    is_audited,
    is_drawn,
)
from ownweights.verdict.statistics.detector import weigh_audit

SERVED = Standing("r1")
CANARY = first_standing("r1", "canary")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("is_frozen", [False, True])
def test_standing_survives_its_text(stage, is_frozen: bool) -> None:
    first = first_standing("abc", stage)
    known = Standing(first.route_id, first.stage, first.share, is_frozen)
    assert Standing.from_text(known.to_text(), where="pointer") == known


@pytest.mark.parametrize(
    "text",
    [
        "", "abc", "[]", "{}", "7", "[" * 100_000, '{"route_id": 7}', '{"route_id": "a", "x": 1}',
        '{"route_id": "a", "stage": "live"}', '{"route_id": "a", "stage": "canary", "share": 0.5}',
        '{"route_id": "a", "stage": "served", "share": 0.5}',
        '{"route_id": "a", "is_frozen": "no"}', '{"route_id": "a", "stage": ["served"]}',
    ],
)  # fmt: skip
def test_standing_refuses_what_is_none(text: str) -> None:
    with pytest.raises(InputError, match="pointer"):
        Standing.from_text(text, where="pointer")


def test_standings_follow_each_other_to_the_end() -> None:
    found, standing = [], first_standing("r", "shadow")
    while standing is not None:
        found.append((standing.stage, standing.share))
        standing = standing.next()
    steps = [("canary", share) for share in CANARY_SHARES]
    assert found == [("shadow", 0.0), *steps, ("served", 1.0)]


def test_draw_is_as_frequent_as_the_share() -> None:
    for standing in (CANARY, CANARY.next(), SERVED, first_standing("r", "shadow")):
        drawn = np.mean([is_drawn(standing, None, f"q{i}") for i in range(4_000)])
        spread = np.sqrt(standing.share * (1 - standing.share) / 4_000)
        assert abs(drawn - standing.share) <= 4 * spread


@given(st.text(max_size=40), st.text(max_size=10))
def test_draw_keeps_its_sessions_as_the_share_grows(session: str, request_id: str) -> None:
    wider = CANARY.next()
    assert wider is not None
    if is_drawn(CANARY, session, request_id):
        assert is_drawn(wider, session, request_id)
    assert is_drawn(SERVED, session, request_id)


@given(st.text(min_size=1, max_size=40), st.text(max_size=10), st.text(max_size=10))
def test_draw_is_the_same_all_through_a_session(session: str, first: str, second: str) -> None:
    assert is_drawn(CANARY, session, first) == is_drawn(CANARY, session, second)


def test_draws_of_routes_and_of_audits_are_their_own() -> None:
    """Who is drawn for one route, or for the student, says nothing about another, or an audit."""
    other = first_standing("r2", "canary")
    names = [f"q{i}" for i in range(8_000)]
    ours = np.array([is_drawn(CANARY, None, name) for name in names])
    theirs = np.array([is_drawn(other, None, name) for name in names])
    audits = np.array([is_audited(CANARY, name, 0.05) for name in names])
    for found in (theirs, audits):
        assert abs(np.corrcoef(ours, found)[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("standing", "is_near", "chance"),
    [(CANARY, False, 1.0), (CANARY, True, 1.0), (SERVED, False, 0.02), (SERVED, True, 0.06)],
)
def test_audit_chance_depends_on_stage_and_score(standing, is_near: bool, chance: float) -> None:
    assert audit_chance(standing, 0.02, is_near=is_near) == pytest.approx(chance)
    assert audit_chance(SERVED, 0.9, is_near=True) == 1.0


@pytest.mark.parametrize(
    ("standing", "is_near", "chance"),
    [(CANARY, False, 1.0), (SERVED, False, 0.04), (SERVED, True, 0.12)],
)
def test_audit_chance_is_doubled_while_an_incident_is_open(
    standing, is_near: bool, chance: float
) -> None:
    found = audit_chance(standing, 0.02, is_near=is_near, has_incident=True)
    assert found == pytest.approx(chance)
    assert audit_chance(SERVED, 0.6, is_near=False, has_incident=True) == 1.0
    # whatever the chance was, an answer weighs the same on average
    if standing is SERVED:
        assert chance * weigh_audit(1.0, chance, 0.02) == pytest.approx(0.02)
