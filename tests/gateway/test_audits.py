"""Audits of live answers: who is asked, what is written down, what a route does then."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ownweights.core.chat import ChatRequest, Completion, Usage
from ownweights.core.project import Project
from ownweights.gateway import audits as audits_module
from ownweights.gateway.audits import Auditor, Both, Compared
from ownweights.gateway.exchange import open_exchange
from ownweights.gateway.judges import LiveJudges
from ownweights.gateway.settings import GatewaySettings
from ownweights.route import Route, active_id, load_route
from ownweights.route.audits import AuditLog
from ownweights.route.evidence import STEP_AUDITS, Audit
from ownweights.route.live import evidence_of
from ownweights.route.replay import Logged, replay
from ownweights.route.rollout import CANARY_SHARES, first_standing, is_audited, is_drawn
from ownweights.route.route import active_standing
from ownweights.traffic.workload import workload_hash
from ownweights.verdict import check_named
from ownweights.verdict.voiding import void_reason
from tests.dataset.records import built, record
from tests.fakes import ScriptedTeacher, last_user_text
from tests.gateway.harness import (
    WAIT_S,
    Engines,
    Running,
    audits_when,
    followed,
    gateway,
    reason_of,
    sure,
)
from tests.route.samples import answer_of, body_of, make_verdict
from tests.teacher.servers import free_port, replay_of, running
from tests.verdict.drift.endpoints import with_incident

NAMED = {"x_own_workload": "tickets"}
QUESTIONS = [f"q{i}" for i in range(160)]  # to the student's eye one prompt, but for its number
WORDS = ["".join(pair) for pair in itertools.product("abcdefghijklm", repeat=2)]  # a unit each


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def teacher() -> Iterator[str]:
    """A teacher that answers in capitals."""
    with running(replay_of({text: text.upper() for text in [*QUESTIONS, *WORDS]})) as url:
        yield f"{url}/v1"


def good(request: ChatRequest) -> Completion:
    return answer_of(last_user_text(request).upper(), logprob=-0.1)


def ask_all(one: Running, texts: list[str], **headers: str) -> list[tuple[str, str]]:
    return [reason_of(one.post(body_of(text), **NAMED, **headers)) for text in texts]


def test_gateway_audits_served_answers_by_chance(project: Project, teacher: str) -> None:
    route = followed(project, "served")
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        said = ask_all(one, QUESTIONS[:60])
        assert set(said) == {("student", "served")}
        found = audits_when(project, route, lambda found: len(found) >= 15)
    found = AuditLog(project, route.id).since()[0]
    assert 15 <= len(found) <= 45
    assert {(a.kind, a.stage, a.harm, a.chance) for a in found} == {("audit", "served", 0.0, 0.5)}
    assert len(found) + sum(audit.quiet for audit in found) <= 60
    ids = {record.id for record in one.kept.records}
    assert {audit.request_id for audit in found} < ids


def test_gateway_audits_more_while_an_incident_is_open(project: Project, teacher: str) -> None:
    """The chance that was used is written down, and the evidence weighs by it."""
    route = followed(project, "served", audit_frac=0.3)
    with_incident(project, "main")
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        ask_all(one, QUESTIONS[:60])
        found = audits_when(project, route, lambda found: len(found) >= 15)
        ids = [record.id for record in one.kept.records]
    assert {audit.chance for audit in found} == {0.6}
    drawn = {name for name in ids if is_audited(first_standing(route.id, "served"), name, 0.6)}
    assert {audit.request_id for audit in AuditLog(project, route.id).since()[0]} == drawn


def test_gateway_learns_of_an_incident_while_it_runs(
    project: Project, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits_module, "DRIFT_LOOK_S", 0.0)
    route = followed(project, "served", audit_frac=0.5, near=10.0)
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        with_incident(project, "another")  # nobody's teacher here
        ask_all(one, QUESTIONS[:3])
        route = followed(project, "served", audit_frac=0.3)
        with_incident(project, "main")
        texts = iter(QUESTIONS[3:] * 4)

        def is_known(found: list[Audit]) -> bool:
            ask_all(one, [next(texts)])
            return any(audit.chance == 0.6 for audit in found)

        found = audits_when(project, route, is_known)
    assert {audit.chance for audit in found} <= {0.3, 0.6}


def test_gateway_bets_on_a_unit_once(project: Project, teacher: str) -> None:
    """A session, or all that ask the same: the others are written down and counted."""
    route = followed(project, "shadow")
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        ask_all(one, WORDS[:3], x_own_session="a")
        ask_all(one, [WORDS[0], WORDS[1], WORDS[0]])
        found = audits_when(project, route, lambda found: len(found) == 6)
    assert len({audit.unit for audit in found}) == 3
    assert WORDS[0] not in {audit.unit for audit in found}
    evidence = evidence_of(project, route)
    assert (evidence.num_judged, evidence.num_units, evidence.stake.num_seen) == (6, 3, 3)


def test_gateway_rolls_a_harmful_student_back(project: Project, teacher: str) -> None:
    route = followed(project, "served")
    with gateway(project, teacher, engines=Engines(sure("nonsense"))) as one:
        one.until("ready")
        for text in WORDS:
            one.post(body_of(text), **NAMED)
            if active_id(project, "tickets") is None:
                break
        audits_when(project, route, lambda _: active_id(project, "tickets") is None)
        assert ask_all(one, QUESTIONS[:3]) == [("teacher", "no_route")] * 3
    voided = void_reason(project, route.verdict_id)
    assert voided is not None
    assert "harm has risen above 10 %" in voided.reason
    assert evidence_of(project, route).detector.is_alarmed


def test_gateway_goes_on_with_a_good_student(project: Project, teacher: str) -> None:
    route = followed(project, "canary")
    texts, sessions = iter(QUESTIONS * 4), _drawn_sessions(route)
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        for stage in (("canary", CANARY_SHARES[1]), ("served", 1.0)):
            give_up_s = time.monotonic() + 4 * WAIT_S
            while (standing := active_standing(project, "tickets")) is not None and (
                standing.stage, standing.share,
            ) != stage:  # fmt: skip
                assert time.monotonic() < give_up_s
                one.post(body_of(next(texts)), x_own_session=next(sessions), **NAMED)
        assert standing is not None
        found = evidence_of(project, route)
        assert found.num_harms == 0
        assert found.num_units >= 2 * STEP_AUDITS


def test_gateway_shadow_lets_the_teacher_answer(project: Project, teacher: str) -> None:
    route = followed(project, "shadow")
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        assert set(ask_all(one, WORDS[:20])) == {("teacher", "shadow")}
        found = audits_when(project, route, lambda found: len(found) == 20)
        assert {(a.kind, a.stage, a.harm) for a in found} == {("shadow", "shadow", 0.0)}
        ask_all(one, WORDS[20 : STEP_AUDITS + 10])
        audits_when(project, route, lambda found: len(found) >= STEP_AUDITS)
        standing = active_standing(project, "tickets")
        assert standing is not None
        assert (standing.stage, standing.share) == ("canary", CANARY_SHARES[0])


def test_gateway_shadow_leaves_out_what_would_not_be_sent(project: Project, teacher: str) -> None:
    route = followed(project, "shadow")
    with gateway(project, teacher, engines=Engines(sure("unsure", -3.0))) as one:
        one.until("ready")
        ask_all(one, QUESTIONS[:5])
    assert AuditLog(project, route.id).since()[0] == []


def test_gateway_counts_requests_that_were_not_the_students(project: Project, teacher: str) -> None:
    """Not sure enough, or ineligible: of its sessions, but not of another prompt."""
    engines = Engines(lambda r: answer_of("Q3", logprob=-0.1 if last_user_text(r) == "q3" else -3))
    route = followed(project, "canary", prompt_hashes=(workload_hash(body_of("q3")),))
    odd, asked = body_of("q1", temperature=0.7), [body_of(text) for text in ("q1", "q2", "q3")]
    other = body_of("q1", messages=[{"role": "system", "content": "x"}, *body_of()["messages"]])
    with gateway(project, teacher, engines=engines) as one:
        one.until("ready")
        one.post(odd, **NAMED, x_own_session="s-not-drawn")
        for body in (other, odd, *asked):
            one.post(body, **NAMED, x_own_session=_drawn_session(route))
        (found,) = audits_when(project, route, lambda found: len(found) == 1)
    assert (found.unsure, found.harm, evidence_of(project, route).step_asked) == (3, 0.0, 4)


def test_gateway_counts_a_failing_student_as_harm(project: Project, teacher: str) -> None:
    def broken(request: ChatRequest) -> Completion:
        raise ZeroDivisionError("a defect in the engine")

    route = followed(project, "served")
    with gateway(project, teacher, engines=Engines(broken)) as one:
        one.until("ready")
        assert ask_all(one, QUESTIONS[:1]) == [("teacher", "student_error")]
        (found,) = audits_when(project, route, lambda found: len(found) == 1)
        assert (found.kind, found.harm, found.chance) == ("failure", 1.0, 1.0)


def test_gateway_counts_an_answer_that_is_no_json_as_harm(project: Project, teacher: str) -> None:
    """The teacher answers; it is a loss where the route would have sent it, as it was certified."""
    logprob_of = {"q1": -0.1, "q2": -3.0}
    engines = Engines(lambda r: answer_of("no object", logprob=logprob_of[last_user_text(r)]))
    route = followed(project, "served")
    with gateway(project, teacher, engines=engines) as one:
        one.until("ready")
        for text in ("q2", "q1"):
            answer = one.post(body_of(text, response_format={"type": "json_object"}), **NAMED)
            assert reason_of(answer) == ("teacher", "student_error")
        (found,) = audits_when(project, route, lambda found: len(found) >= 1)
    assert (found.kind, found.harm, found.chance) == ("failure", 1.0, 1.0)
    assert found.request_id == answer.headers["x-own-request-id"]
    assert AuditLog(project, route.id).since()[0] == [found]


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "json_object"}}])
def test_gateway_shadow_counts_a_failing_student_as_harm(
    project: Project, teacher: str, fields: dict[str, Any]
) -> None:
    def broken(request: ChatRequest) -> Completion:
        if fields:
            return answer_of("no object")
        raise ZeroDivisionError("a defect in the engine")

    route = followed(project, "shadow")
    with gateway(project, teacher, engines=Engines(broken)) as one:
        one.until("ready")
        assert reason_of(one.post(body_of("q1", **fields), **NAMED)) == ("teacher", "shadow")
        (found,) = audits_when(project, route, lambda found: len(found) == 1)
    assert (found.kind, found.stage, found.harm) == ("failure", "shadow", 1.0)


def test_gateway_time_out_of_a_student_is_harm(project: Project, teacher: str) -> None:
    route = followed(project, "served", timeout_s=0.05)
    with gateway(project, teacher, engines=Engines(ScriptedTeacher("x", is_stuck=True))) as one:
        one.until("ready")
        assert ask_all(one, QUESTIONS[:1]) == [("teacher", "student_timeout")]
        (found,) = audits_when(project, route, lambda found: len(found) == 1)
        assert found.kind == "failure"


def test_gateway_without_an_engine_blames_nobody(project: Project, teacher: str) -> None:
    """NotLoaded says nothing of the student: it was never asked."""
    route = followed(project, "served")
    with gateway(project, teacher, engines=Engines(fails=[RuntimeError("no memory")] * 99)) as one:
        one.until("down")
        assert ask_all(one, QUESTIONS[:2]) == [("teacher", "student_error")] * 2
    assert AuditLog(project, route.id).since()[0] == []


QUERIES = {"q1": "SELECT count(*) FROM item", "q2": "SELECT id FROM item"}


def sql_check(project: Project) -> str:
    """The canonical name of a check that reads a database in the project's folder."""
    connection = sqlite3.connect(project.root / "shop.db")
    connection.execute("CREATE TABLE item (id INTEGER)")
    connection.executemany("INSERT INTO item VALUES (?)", [(1,), (2,)])
    connection.commit()
    connection.close()
    return check_named("sql database=shop.db", project.root).name


def test_audit_keeps_what_the_teacher_took(project: Project) -> None:
    route = followed(project, "served", near=10.0)
    usage = {"prompt_tokens": 17, "completion_tokens": 4}
    with (
        running(replay_of({"q1": "Q1"}, usage=usage)) as url,
        gateway(project, f"{url}/v1", engines=Engines(good)) as one,
    ):
        one.until("ready")
        ask_all(one, ["q1"])
        (found,) = audits_when(project, route, lambda found: len(found) == 1)
    assert (found.asked, found.judge) == (Usage(17, 4), Usage())


def queries_asked(project: Project, route: Route) -> list[Audit]:
    """Both queries, the student's answer being 2 each time; what was audited."""
    engines = Engines(sure("SELECT 2"))
    with running(replay_of(QUERIES)) as url, gateway(project, f"{url}/v1", engines=engines) as one:
        one.until("ready")
        ids = [one.post(body_of(text), **NAMED).headers["x-own-request-id"] for text in QUERIES]
        found = audits_when(project, route, lambda found: len(found) == 2)
    return sorted(found, key=lambda audit: ids.index(audit.request_id))


def test_audit_check_finds_its_files_in_the_project(project: Project) -> None:
    route = followed(project, "served", check=sql_check(project), near=10.0)
    assert [audit.harm for audit in queries_asked(project, route)] == [0.0, 1.0]


def test_audit_by_a_check_whose_file_changed_says_nothing(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    route = followed(project, "served", check=sql_check(project), near=10.0)
    (project.root / "shop.db").write_bytes(b"no database")
    assert [audit.is_judged for audit in queries_asked(project, route)] == [False, False]
    assert "its check failed with SettingsError" in caplog.text
    assert "SELECT" not in caplog.text
    assert evidence_of(project, route).num_missed == 2


def certified_route(project: Project, answers: dict[str, list[str]]) -> tuple[Route, Path]:
    """A served route, audited always, whose dataset knows these answers; where that dataset is."""
    records = [
        record(request=body_of(text), says=one, id=f"{text}-{i}")
        for text, told in answers.items()
        for i, one in enumerate(told)
    ]
    dataset = built(project, records)
    verdict = make_verdict(project, dataset=dataset.id)
    return followed(project, "served", verdict_id=verdict.id, near=10.0), dataset.path


def harms_of(project: Project, route: Route, teacher: str, texts: list[str]) -> list[float | None]:
    """The harms of audits of a student that always says A, request by request."""
    with gateway(project, teacher, engines=Engines(sure("A"))) as one:
        one.until("ready")
        ids = [one.post(body_of(text), **NAMED).headers["x-own-request-id"] for text in texts]
        found = audits_when(project, route, lambda found: len(found) == len(texts))
    return [audit.harm for audit in sorted(found, key=lambda audit: ids.index(audit.request_id))]


def test_audit_knows_the_answers_that_were_certified_against(project: Project) -> None:
    """The teacher says B today; A is harm only where it was never recorded for that request."""
    known = {"q1": ["A", "A", "B"], "q2": ["B", "C"]}
    route, _ = certified_route(project, known)
    with running(replay_of(dict.fromkeys(["q1", "q2", "q3"], "B"))) as url:
        assert harms_of(project, route, f"{url}/v1", ["q1", "q2", "q3", "q1"]) == [0, 1, 1, 0]


def test_audit_without_its_dataset_goes_by_the_fresh_answer(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    route, dataset = certified_route(project, {"q1": ["A", "B"], "q2": ["B"]})
    (dataset / "train.jsonl").write_text("")
    (dataset / "certify.jsonl").write_text("")
    with running(replay_of({"q1": "B", "q2": "A"})) as url:
        assert harms_of(project, route, f"{url}/v1", ["q1", "q2", "q1"]) == [1, 0, 1]
    assert caplog.text.count("its audits know no recorded answers") == 1


def test_audit_of_a_silent_teacher_says_nothing(project: Project) -> None:
    route = followed(project, "canary")
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with gateway(project, nobody, engines=Engines(good)) as one:
        one.until("ready")
        session = _drawn_session(route)
        assert ask_all(one, QUESTIONS[:2], x_own_session=session) == [("student", "served")] * 2
        audits_when(project, route, lambda found: len(found) == 2)
    found = evidence_of(project, route)
    assert (found.num_missed, found.num_judged) == (2, 0)


def test_audit_that_breaks_is_missed(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Also what nobody foresaw leaves a row, in shadow as elsewhere; without content in the log."""
    route = followed(project, "shadow")
    exchange = open_exchange({"headers": []}, b"", body_of("q1"))

    async def breaks() -> Both | None:
        raise RecursionError("q1")

    async def one_audit() -> None:
        auditor = Auditor(project, LiveJudges(project, GatewaySettings()))
        auditor.shadowed(Compared(exchange, route, first_standing(route.id, "shadow"), breaks))
        await auditor.close()

    asyncio.run(one_audit())
    (found,) = AuditLog(project, route.id).since()[0]
    assert (found.request_id, found.kind, found.is_judged) == (exchange.id, "shadow", False)
    assert "audit is missed: RecursionError" in caplog.text
    assert "q1" not in caplog.text


def test_audit_under_way_at_the_end_is_missed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits_module, "CLOSE_S", 0.0)
    route = followed(project, "shadow")
    engines = Engines(ScriptedTeacher("x", is_stuck=True))
    with (
        running(replay_of({"q1": "Q1"})) as url,
        gateway(project, f"{url}/v1", engines=engines) as one,
    ):
        one.until("ready")
        answer = one.post(body_of("q1"), **NAMED)
        assert reason_of(answer) == ("teacher", "shadow")
    (found,) = AuditLog(project, route.id).since()[0]
    assert found.request_id == answer.headers["x-own-request-id"]
    assert evidence_of(project, route).num_missed == 1


@pytest.mark.parametrize("quiet_s", [30.0, 0.0])
def test_gateway_that_starts_anew_counts_all_that_was_served(
    project: Project, teacher: str, monkeypatch: pytest.MonkeyPatch, quiet_s: float
) -> None:
    """Up to the last audit, each answer is an audit or counted as none, whoever was running."""
    monkeypatch.setattr(audits_module, "QUIET_S", quiet_s)
    route = followed(project, "served", audit_frac=0.1)
    ids = list[str]()
    while True:
        with gateway(project, teacher, engines=Engines(good)) as one:
            one.until("ready")
            ask_all(one, QUESTIONS[:12])
            one.kept.wait(12)
        ids += [record.id for record in one.kept.records]
        found = AuditLog(project, route.id).since()[0]
        if found and ids.index(found[-1].request_id) > 24:
            break
    assert len(found) + sum(audit.quiet for audit in found) == ids.index(found[-1].request_id) + 1


def test_audits_that_find_no_room_are_missed(
    project: Project, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits_module, "MAX_AT_ONCE", 0)
    route = followed(project, "canary")
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        ask_all(one, QUESTIONS[:1], x_own_session=_drawn_session(route))
        audits_when(project, route, lambda found: len(found) == 1)
    assert evidence_of(project, route).num_missed == 1


def test_gateway_keeps_a_session_with_whom_it_began(project: Project, teacher: str) -> None:
    followed(project, "canary", check="")
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        for session in ("a", "b", "c", "d"):
            said = ask_all(one, QUESTIONS[:4], x_own_session=session)
            assert len(set(said)) == 1
            assert said[0] in {("student", "served"), ("teacher", "canary")}


def test_gateway_audits_a_streamed_answer(project: Project, teacher: str) -> None:
    route = followed(project, "canary")
    with gateway(project, teacher, engines=Engines(good)) as one:
        one.until("ready")
        headers = {"x-own-workload": "tickets", "x-own-session": _drawn_session(route)}
        body = body_of("q1", stream=True, stream_options={"include_usage": True})
        with httpx.stream("POST", one.chat_url, json=body, headers=headers) as answer:
            answer.read()
        (found,) = audits_when(project, route, lambda found: len(found) == 1)
        assert found.harm == 0.0


def test_gateway_decisions_are_replayed(project: Project, teacher: str) -> None:
    route = followed(project, "canary", audit_frac=0.02, run_length=1e6)
    engines = Engines(lambda request: answer_of("x", logprob=-len(last_user_text(request)) / 5))
    with gateway(project, teacher, engines=engines) as one:
        one.until("ready")
        said = [
            reason_of(one.post(body_of(text), x_own_session=f"s{i // 2}", **NAMED))[1]
            for i, text in enumerate(QUESTIONS)
        ]
        one.kept.wait(len(QUESTIONS))
    assert {"served", "below_threshold", "canary"} >= set(said) > {"canary"}
    logged = [Logged(r.id, r.session, r.metadata["own"]) for r in one.kept.records]
    found = replay(logged, lambda route_id: load_route(project, route_id))
    assert (found.num_same, found.differences) == (len(QUESTIONS), ())
    bent = [Logged(one.request_id, one.session, {**one.own, "reason": "served"}) for one in logged]
    wrong = replay(bent, lambda route_id: load_route(project, route_id))
    assert len(wrong.differences) == sum(reason != "served" for reason in said)
    gone = [Logged("a", None, {"reason": "served", "route": "nope"})]
    assert "cannot be read" in replay(gone, lambda r: load_route(project, r)).differences[0]
    other = [Logged("a", None, {"reason": "forced", "route": route.id})]
    assert replay(other, lambda r: load_route(project, r)).num_left_out == 1


def _drawn_session(route: Route) -> str:
    """A session that the first step of a canary draws."""
    return next(_drawn_sessions(route))


def _drawn_sessions(route: Route) -> Iterator[str]:
    """All of them, one after the other."""
    standing = first_standing(route.id, "canary")
    return (f"s{i}" for i in itertools.count() if is_drawn(standing, f"s{i}", "x"))
