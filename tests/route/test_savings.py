"""What a route saves, against sums by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from ownweights.core.chat import Usage
from ownweights.core.project import Project, Server
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import MISSED, Audit
from ownweights.route.route import history_path
from ownweights.route.savings import Saved, followed_since, savings_of
from ownweights.traffic.record import Record, Role, make_record
from ownweights.traffic.store import TrafficStore
from ownweights.verdict.scan import Prices
from tests.route.samples import follow

PRICES = Prices(2.0, 10.0)
ROUTE = "r1"


def record(
    role: Role, asked: str, told: str, *, session: str | None = None, route: str = ROUTE, **own: Any
) -> Record:
    """A recorded request; the teacher reads a token a character and writes two."""
    usage = {"prompt_tokens": len(asked), "completion_tokens": 2 * len(told)}
    choice = {"message": {"role": "assistant", "content": told}, "finish_reason": "stop"}
    return make_record(
        {"model": "m", "messages": [{"role": "user", "content": asked}]},
        {"choices": [choice], "usage": usage if role == "teacher" else {"prompt_tokens": 1}},
        role=role, workload="tickets", session=session,
        metadata={"own": {"route": route, **own}},
    )  # fmt: skip


def audit_of(one: Record, harm: float | None = 0.0, **fields: Any) -> Audit:
    return Audit(one.id, one.at, "served", "audit", harm, 0.5, **fields)


def test_savings_match_a_sum_by_hand() -> None:
    """Three sessions save 10·2 + 3·20, 0 and 20·2 + 1·20 millionths, over 1, 1 and 1 requests."""
    rows = [
        record("student", "a" * 10, "yes", session="s1"),
        record("teacher", "b" * 30, "nope", session="s2"),
        record("student", "c" * 20, "y", session="s3"),
        record("student", "c" * 99, "y", session="s4", route="other"),
    ]
    found = Saved(ROUTE, [])
    for row in rows:
        found.add(row)
    total = found.total(PRICES, None)
    assert (total.requests, total.served, total.audits, total.units) == (3, 2, 0, 3)
    saved = [80e-6, 0.0, 60e-6]
    known = stats.ttest_1samp(saved, 0.0).confidence_interval(0.95)
    assert total.usd == pytest.approx(sum(saved))
    assert (total.usd_low, total.usd_high) == (
        pytest.approx(3 * known.low), pytest.approx(3 * known.high),
    )  # fmt: skip
    assert total.estimated_frac == 1.0


@pytest.mark.parametrize("asked", [Usage(50, 70), Usage()])
def test_savings_of_an_audited_answer_are_nothing(asked: Usage) -> None:
    """Whether the teacher said how many tokens it took or not."""
    one = record("student", "a" * 10, "yes")
    found = Saved(ROUTE, [audit_of(one, asked=asked)])
    found.add(one)
    total = found.total(PRICES, None)
    assert total.usd == 0.0
    assert total.usd_audits == total.usd_before_audits
    assert total.audits == 1
    if asked.total_tokens:
        assert total.usd_audits == pytest.approx(800e-6)
        assert total.estimated_frac == 0.0


def test_savings_leave_out_audits_that_nobody_answered() -> None:
    rows = [record("student", "a" * 8, "y") for _ in range(2)]
    found = Saved(ROUTE, [audit_of(row, MISSED) for row in rows])
    for row in rows:
        found.add(row)
    total = found.total(PRICES, None)
    assert (total.audits, total.usd_audits) == (0, 0.0)
    assert total.units == 1  # both ask the same, and nothing says how that varies
    assert (total.usd_low, total.usd_high) == (None, None)
    assert total.usd == pytest.approx(2 * (8 / 4 * 2 + 1 / 4 * 10) / 1e6)  # four characters a token


def test_savings_count_what_a_judge_costs() -> None:
    one = record("student", "a" * 10, "yes")
    found = Saved(ROUTE, [audit_of(one, asked=Usage(10, 6), judge=Usage(1000, 100))])
    found.add(one)
    assert found.total(PRICES, None).usd is None  # the judge's price is not known
    assert found.total(PRICES, Prices(1.0, 5.0)).usd == pytest.approx(-1500e-6)


def test_savings_without_a_price_are_unknown() -> None:
    found = Saved(ROUTE, [])
    found.add(record("student", "a", "b"))
    total = found.total(None, None)
    assert (total.served, total.usd, total.usd_low, total.usd_before_audits) == (
        1,
        None,
        None,
        None,
    )


def test_savings_of_an_answer_that_broke_off_are_not_counted() -> None:
    found = Saved(ROUTE, [])
    found.add(record("student", "a", "b", error="student_error"))
    found.add(record("student", "a", "b", error="client_gone"))
    assert found.total(PRICES, None).served == 1


def test_savings_are_read_from_the_store(address: Path | Server, tmp_path: Path) -> None:
    project = Project(tmp_path, server=address if isinstance(address, Server) else None)
    route = follow(project)
    since = followed_since(project, route.id)
    assert since is not None
    one = record("student", "a" * 10, "yes", route=route.id)
    old = dataclasses.replace(record("student", "x", "y", route=route.id), at=since - 1e6)
    with TrafficStore.open(project) as store:
        store.add([old])
        store.add([one])
    AuditLog(project, route.id).append(audit_of(one, asked=Usage(10, 6)))
    total = savings_of(project, route, PRICES)
    assert (total.requests, total.served, total.audits) == (1, 1, 1)
    assert total.usd_audits == pytest.approx(80e-6)
    assert followed_since(project, "another") is None


def test_savings_are_read_past_what_a_file_brought_later(tmp_path: Path) -> None:
    project = Project(tmp_path)
    route = follow(project)
    one = record("student", "a" * 10, "yes", route=route.id)
    brought = dataclasses.replace(record("student", "x", "y"), at=1.0, source_id="of-a-file")
    with TrafficStore.open(project) as store:
        store.add([one])
        store.add([brought])
    assert savings_of(project, route, PRICES).served == 1


def test_followed_since_is_read_past_damaged_lines(tmp_path: Path) -> None:
    project = Project(tmp_path)
    route = follow(project)
    path = history_path(project)
    (known,) = path.read_bytes().splitlines()
    odd = [b'{"at": 1, "wor', b"[1]", b"\xff", f'{{"to": "{route.id}"}}'.encode()]
    odd += [f'{{"to": "{route.id}", "at": {at}}}'.encode() for at in ('"x"', "null", "[1]", "true")]
    path.write_bytes(b"\n".join([*odd, known, b""]))
    assert followed_since(project, route.id) == json.loads(known)["at"]
