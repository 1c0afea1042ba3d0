"""What live evidence does to a route on disk."""

from __future__ import annotations

import errno
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ownweights.core.chat import Usage
from ownweights.core.errors import StoreError
from ownweights.core.project import Project, Server
from ownweights.route import (
    NotCertified,
    Route,
    activate,
    active_dir,
    active_id,
    live,
    read_active,
    rollback,
    write_route,
)
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import DAY_S, MISSED, STEP_AUDITS, Audit, Watch, fold, next_standing
from ownweights.route.live import (
    Follower,
    evidence_of,
    follow_evidence,
    withdraw_void,
)
from ownweights.route.rollout import CANARY_SHARES, Standing, first_standing
from ownweights.route.route import active_standing, stand
from ownweights.verdict.voiding import void_certificate, void_reason
from tests.route.samples import follow, route_of


@pytest.fixture
def project(address: Path | Server, tmp_path: Path) -> Project:
    return Project(tmp_path, server=address if isinstance(address, Server) else None)


def at_canary(project: Project) -> Route:
    route = follow(project, check="exact")
    stand(project, "tickets", first_standing(route.id, "canary"), reason="test")
    return route


def write(project: Project, route: Route, harms: list[float | None]) -> None:
    standing = active_standing(project, "tickets")
    assert standing is not None
    log = AuditLog(project, route.id)
    for i, harm in enumerate(harms):
        log.append(Audit(f"q{i}", float(i), standing.stage, "audit", harm, share=standing.share))


def follow_now(project: Project, route: Route) -> str | None:
    return follow_evidence(project, route, evidence_of(project, route))


def test_audit_log_gives_back_what_was_written(project: Project) -> None:
    log, other = AuditLog(project, "r1"), AuditLog(project, "r2")
    known = [
        Audit("a", 1.5, "served", "audit", 0.25, 0.02, 49, asked=Usage(7, 5), judge=Usage(90, 9)),
        Audit("b", 2.5, "canary", "failure", 1.0, 1.0, 0, 0.05),
        Audit("ü", 3.5, "shadow", "shadow", None, 1.0, 0, 0.0, unit="ab12", unsure=7),
    ]
    for audit in known:
        log.append(audit)
        other.append(audit)
    found, seq = log.since()
    assert found == known
    assert log.since(seq) == ([], seq)
    log.append(Audit("d", 4.5, "served", "audit", MISSED))
    (missed,), _ = log.since(seq)
    assert not missed.is_judged


def test_audit_log_tallies_are_as_if_one_process_had_counted(project: Project) -> None:
    """Each request in turn: one log is told of it by a process that ends every few requests."""
    rng = np.random.default_rng(0)
    whole, parted = AuditLog(project, "r1"), AuditLog(project, "r2")
    quiet = kept = seq = 0
    read = list[Audit]()
    for i in range(600):
        if rng.random() < 0.02:
            harm = float(rng.choice([0.0, 1.0, MISSED], p=[0.6, 0.2, 0.2]))
            whole.append(Audit(f"q{i}", 0.0, "served", "audit", harm, 0.02, quiet))
            parted.append(Audit(f"q{i}", 0.0, "served", "audit", harm, 0.02, kept))
            quiet = kept = 0
        else:
            quiet, kept = quiet + 1, kept + 1
        if i % 25 == 24:
            parted.tally(kept)
            kept = 0
            fresh, seq = parted.since(seq)
            read += fresh
    known = whole.since()[0]
    assert len(known) > 5
    for found in (read, parted.since()[0]):
        assert [(a.request_id, a.quiet) for a in found] == [(a.request_id, a.quiet) for a in known]
    watch = Watch(0.05, 0.1, 0.05, 0.02, 10_000)
    assert fold(read, watch) == fold(known, watch)


def test_audit_log_knows_units_seen_before(project: Project) -> None:
    """By judged audits of a route, a failure by failures; an unknown unit is never the same."""
    log, rng = AuditLog(project, "r1"), random.Random(0)
    written: list[Audit] = []
    for i in range(80):
        kind = rng.choice(["audit", "failure", "shadow"])
        harm = rng.choice([0.0, None, MISSED])
        one = Audit(f"q{i}", float(i), "canary", kind, harm, unit=rng.choice(["", "a", "b", "c"]))
        AuditLog(project, rng.choice(["r1", "r2"])).append(one)
        written = [*written, one]
    found, _ = log.since()
    for i, one in enumerate(found):
        before = [b.at for b in found[:i] if b.unit == one.unit != ""
                  and b.is_judged and (b.kind == "failure") == (one.kind == "failure")]  # fmt: skip
        assert one.seen_at == (max(before) if before else None)
    half, seq = log.since(40)
    assert [b.seen_at for b in half] == [b.seen_at for b in found[-len(half) :]]
    assert log.since(seq) == ([], seq)


def test_audit_log_knows_a_unit_seen_today_although_the_clock_jumped(project: Project) -> None:
    """A clock that once ran ahead does not let a session be bet on again and again."""
    log = AuditLog(project, "r1")
    for at in (5.5 * DAY_S, 0.2 * DAY_S, 0.4 * DAY_S, 5.6 * DAY_S, 0.6 * DAY_S, 1.2 * DAY_S):
        log.append(Audit("q", at, "canary", "audit", 0.0, unit="a"))
    found, _ = log.since()
    assert [one.is_seen_today for one in found] == [False, False, True, True, True, False]
    assert [one.seen_at is None for one in found] == [True] + [False] * 5


def test_audit_log_is_shared(project: Project) -> None:
    def append(name: str) -> None:
        for i in range(25):
            AuditLog(project, "r1").append(Audit(f"{name}{i}", 0.0, "served", "audit", 0.0))

    threads = [threading.Thread(target=append, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, _ = AuditLog(project, "r1").since()
    assert len({audit.request_id for audit in found}) == 50


def test_live_alarm_rolls_back_and_voids(project: Project) -> None:
    route = at_canary(project)
    write(project, route, [1.0] * 10)
    said = follow_now(project, route)
    assert said is not None
    assert said.startswith(f"rolled back to the teacher, certificate {route.verdict_id} is void")
    assert active_id(project, "tickets") is None
    voided = void_reason(project, route.verdict_id)
    assert voided is not None
    assert voided.by == f"route {route.id}"
    assert follow_now(project, route) is None


def test_live_goes_on_step_by_step(project: Project) -> None:
    route = at_canary(project)
    for stage in ("canary", "served"):
        write(project, route, [0.0] * STEP_AUDITS)
        said = follow_now(project, route)
        assert said is not None
        assert said.startswith(f"on to {stage}")
    assert active_standing(project, "tickets") == Standing(route.id)
    assert follow_now(project, route) is None


def test_live_promoted_again_needs_fresh_audits(project: Project) -> None:
    """After a rollback by hand, one audit more does not make sixty of old."""
    route = at_canary(project)
    write(project, route, [0.0] * (STEP_AUDITS + 10))
    rollback(project, "tickets", reason="by hand")
    for again in (
        lambda: activate(project, "tickets", route.id, stage="canary"),
        lambda: rollback(project, "tickets", to=route.id),
    ):
        again()
        standing = active_standing(project, "tickets")
        assert standing is not None
        assert (standing.stage, standing.share) == ("canary", CANARY_SHARES[0])
        write(project, route, [0.0])
        assert follow_now(project, route) is None
        assert evidence_of(project, route).num_judged == 1
    write(project, route, [0.0] * (STEP_AUDITS - 1))
    assert str(follow_now(project, route)).startswith("on to canary (25 %")
    assert active_standing(project, "tickets") == replace(standing, share=CANARY_SHARES[1])


def test_follower_folds_what_the_log_holds(project: Project) -> None:
    """Also when another process writes, and when the route is followed anew."""
    route, follower = at_canary(project), Follower(project)
    for _ in range(2):
        write(project, route, [0.0, None])
        follower.add(route, Audit("q", 1.0, "canary", "audit", 1.0, share=CANARY_SHARES[0]))
        assert follower.catch_up() == {}
        before = evidence_of(project, route)
        assert (before.num_judged, before.num_harms) == (3, 2.0)
        activate(project, "tickets", route.id, stage="canary")
    write(project, route, [0.0] * (STEP_AUDITS - 1))
    follower.add(route, Audit("q", 1.0, "canary", "audit", 0.0, share=CANARY_SHARES[0]))
    assert follower.catch_up()["tickets"].startswith("on to canary (25 %")


def test_follower_keeps_audits_until_they_can_be_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once and in order, and then what they say is done; what finds no room is counted."""
    monkeypatch.setattr(live, "MAX_UNWRITTEN", 10)
    route, follower, log = at_canary(project), Follower(project), AuditLog
    share, is_full = CANARY_SHARES[0], [True]

    class Full(AuditLog):
        def append(self, audit: Audit) -> None:
            if is_full[0] or audit.request_id == "q3":
                is_full[0] = True
                raise StoreError("own.db cannot grow")
            super().append(audit)

    monkeypatch.setattr(live, "AuditLog", Full)
    for i in range(12):
        follower.add(route, Audit(f"q{i}", float(i), "canary", "audit", 1.0, share=share))
        with pytest.raises(StoreError, match="cannot grow"):
            follower.catch_up()
    is_full[0] = False
    with pytest.raises(StoreError, match="cannot grow"):
        follower.catch_up()
    assert (follower.num_unwritten, follower.num_lost) == (7, 2)
    assert active_id(project, "tickets") == route.id
    monkeypatch.setattr(live, "AuditLog", log)
    assert follower.catch_up()["tickets"].startswith("rolled back to the teacher")
    found = log(project, route.id).since()[0]
    assert [audit.request_id for audit in found] == [f"q{i}" for i in range(10)]
    assert (follower.num_unwritten, active_id(project, "tickets")) == (0, None)


def test_follower_goes_by_a_row_that_is_refused(project: Project) -> None:
    route, follower = at_canary(project), Follower(project)
    for chance in (0.0, 1.0):
        follower.add(route, Audit("q", 1.0, "canary", "audit", 0.0, chance))
    with pytest.raises(StoreError, match="refused a row"):
        follower.catch_up()
    assert follower.catch_up() == {}
    assert (follower.num_unwritten, follower.num_lost) == (0, 1)
    assert len(AuditLog(project, route.id).since()[0]) == 1


def test_live_never_undoes_what_a_person_did(project: Project) -> None:
    route = at_canary(project)
    write(project, route, [0.0] * STEP_AUDITS)
    evidence = evidence_of(project, route)
    rollback(project, "tickets", reason="by hand")
    assert follow_evidence(project, route, evidence) is None
    assert active_id(project, "tickets") is None
    assert void_reason(project, route.verdict_id) is None
    frozen = Standing(route.id, "canary", 0.05, is_frozen=True)
    stand(project, "tickets", frozen, reason="by hand")
    assert follow_evidence(project, route, evidence) is None
    assert active_standing(project, "tickets") == frozen


@pytest.mark.parametrize("is_harm", [True, False])
def test_live_never_undoes_what_a_person_does_meanwhile(
    project: Project, monkeypatch: pytest.MonkeyPatch, is_harm: bool
) -> None:
    """Somebody swaps while the evidence is looked at: the swap waits, and then holds."""
    route, other = at_canary(project), write_route(project, route_of(verdict_id="feedfeedfeed"))
    write(project, route, [1.0] * 10 if is_harm else [0.0] * STEP_AUDITS)
    people = list[threading.Thread]()

    def looked(*words: Any) -> Any:
        def swap() -> None:
            if is_harm:
                activate(project, "tickets", other.id, stage="canary")
            else:
                rollback(project, "tickets", reason="by hand")

        people.append(threading.Thread(target=swap))
        people[0].start()
        people[0].join(0.3)  # where swaps do not wait, it is over by now
        return next_standing(*words)

    monkeypatch.setattr(live, "next_standing", looked)
    assert follow_now(project, route) is not None
    people[0].join()
    assert active_id(project, "tickets") == (other.id if is_harm else None)


def test_live_alarm_that_is_cut_short_leaves_a_void_certificate(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between note and swap: no gateway follows the route, and the next audit ends it."""
    route = at_canary(project)
    write(project, route, [1.0] * 10)

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(live, "rollback", killed)
        with pytest.raises(KeyboardInterrupt):
            follow_now(project, route)
    assert void_reason(project, route.verdict_id) is not None
    assert read_active(project)[0] == {}
    assert str(follow_now(project, route)).startswith("rolled back to the teacher")


def test_live_alarm_rolls_back_where_nothing_can_be_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = at_canary(project)
    write(project, route, [1.0] * 10)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(live, "void_certificate", full)
    with pytest.raises(OSError, match="No space left"):
        follow_now(project, route)
    assert active_id(project, "tickets") is None


def test_withdraw_void_sends_back_what_is_void_and_no_other(project: Project) -> None:
    tickets, mail = follow(project), follow(project, workload="mail", verdict_id="feedfeedfeed")
    (active_dir(project) / "odd").write_text("no pointer")
    assert withdraw_void(project) == []
    void_certificate(project, tickets.verdict_id, reason="drift of the teacher", by="incident")
    assert "is void: drift of the teacher" in str(read_active(project)[1]["tickets"])
    assert withdraw_void(project) == ["tickets goes to the teacher again: drift of the teacher"]
    assert active_id(project, "tickets") is None
    assert active_id(project, "mail") == mail.id


def test_voided_certificate_is_not_promoted_again(project: Project) -> None:
    from ownweights.route.promotion import check_not_void

    route = at_canary(project)
    check_not_void(project, route.verdict_id)
    write(project, route, [1.0] * 10)
    follow_now(project, route)
    with pytest.raises(NotCertified, match="is void: harm has risen") as caught:
        check_not_void(project, route.verdict_id)
    assert "certify again on fresh traffic" in str(caught.value)
