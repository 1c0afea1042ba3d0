"""Routes whose certificate was judged by a model: audits ask that judge, and count its cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.chat import Usage
from ownweights.core.project import Project
from ownweights.gateway import GatewaySettings, Upstream
from ownweights.gateway.judges import LiveJudges
from ownweights.route import JUDGE, Route
from ownweights.route.evidence import Audit
from ownweights.route.live import evidence_of
from ownweights.verdict.judge import Cascade, Judge
from tests.dataset.records import built, record
from tests.fakes import ScriptedTeacher
from tests.gateway.harness import Engines, audits_when, followed, gateway
from tests.route.samples import STUDENT, answer_of, body_of, make_verdict
from tests.teacher.servers import (
    Talk,
    completion,
    free_port,
    json_answer,
    replay_of,
    running,
    talking,
)

NAMED = {"x_own_workload": "tickets"}
RUBRIC = "Manners alone count."
TOLD = {"same": "fine", "bad": "a good answer", "odd": "a good answer"}
SAID = {"same": "fine", "bad": "a bad answer", "odd": "an odd answer"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def say(request: bytes) -> str:
    """The good answer wins, wherever it stands; about an odd one the order decides."""
    body = json.loads(request.split(b"\r\n\r\n", 1)[1])
    assert RUBRIC in body["messages"][0]["content"]
    parts = re.split(r"<<[0-9a-f]{24} (?:FIRST|SECOND) ANSWER>>", body["messages"][1]["content"])
    word = "FIRST" if "odd" in parts[1] + parts[2] or "good" in parts[1] else "SECOND"
    return f"VERDICT: {word}"


@contextlib.contextmanager
def judging() -> Iterator[Talk]:
    """A judge that takes 40 tokens to read and 5 to answer."""
    talks: list[Talk] = []

    def script(index: int) -> list[bytes]:
        text = say(talks[0].requests[index])
        usage = {"prompt_tokens": 40, "completion_tokens": 5}
        return json_answer(json.dumps(completion(text, usage=usage)).encode())

    with talking(script) as talk:
        talks.append(talk)
        yield talk


def judged_route(project: Project, rubric: str = RUBRIC, **subject: Any) -> Route:
    """A route whose certificate names the judge `jury`."""
    cascade = Cascade([Judge(ScriptedTeacher("x"), "judge-9", name="jury", rubric=rubric)])
    verdict = make_verdict(project, check=JUDGE, judge=cascade.identity, **subject)
    fields: dict[str, Any] = {"verdict_id": verdict.id, "check": JUDGE, "near": 10.0}
    return followed(project, "served", student_id=STUDENT, **fields)


def audits_of(
    project: Project, route: Route, texts: list[str], judge_url: str, **settings: Any
) -> list[Audit]:
    """What was audited of these requests, in their order."""
    student = Engines(lambda request: answer_of(SAID.get(request.messages[-1]["content"], "x")))
    settings = {"rubrics": {"tickets": RUBRIC}, **settings}
    with running(replay_of(TOLD)) as url:
        teachers = {
            "main": Upstream("main", f"{url}/v1"), "jury": Upstream("jury", judge_url, "judge-9"),
        }  # fmt: skip
        settings.setdefault("teachers", teachers)
        with gateway(
            project, f"{url}/v1", engines=student, default_teacher="main", **settings
        ) as one:
            one.until("ready")
            ids = [one.post(body_of(t), **NAMED).headers["x-own-request-id"] for t in texts]
            found = audits_when(project, route, lambda found: len(found) == len(texts))
    return sorted(found, key=lambda audit: ids.index(audit.request_id))


def test_live_judge_is_asked_in_both_orders(project: Project) -> None:
    """What equals asks nobody and is no harm; what the order decides is open, and counts as one."""
    route = judged_route(project)
    with judging() as jury:
        found = audits_of(project, route, ["same", "bad", "odd"], jury.base_url)
    assert [audit.harm for audit in found] == [0.0, 1.0, None]
    assert [audit.judge for audit in found] == [Usage(), Usage(80, 10), Usage(80, 10)]
    assert len(jury.requests) == 4
    assert evidence_of(project, route).num_harms == 2.0


def test_live_judge_is_not_asked_of_an_answer_that_was_recorded(project: Project) -> None:
    """As in the certificate: what equals any recorded answer to the request is no harm."""
    asked = [record(request=body_of("bad"), says=one, id=one) for one in ("a bad answer", "other")]
    dataset = built(project, [*asked, record(request=body_of("odd"), says="other", id="odd")])
    route = judged_route(project, dataset=dataset.id)
    with judging() as jury:
        found = audits_of(project, route, ["bad", "odd"], jury.base_url)
    assert [audit.harm for audit in found] == [0.0, None]
    assert len(jury.requests) == 2


def test_live_judge_that_is_out_says_nothing(project: Project) -> None:
    route = judged_route(project)
    (found,) = audits_of(project, route, ["bad"], f"http://127.0.0.1:{free_port()}/v1")
    assert not found.is_judged
    assert evidence_of(project, route).num_missed == 1


def test_live_judge_is_asked_where_the_settings_say_now(project: Project) -> None:
    route = judged_route(project)

    def settings_with(url: str) -> GatewaySettings:
        jury = Upstream("jury", url, "judge-9")
        return GatewaySettings(teachers={"jury": jury}, rubrics={"tickets": RUBRIC})

    async def ask(*urls: str) -> None:
        judges = LiveJudges(project, settings_with(urls[0]))
        for url in urls:
            judges.follow(settings_with(url))
            answer = answer_of("a bad answer")
            found = await judges.harm(route, body_of("bad"), answer, ("a good answer",))
            assert found.harm == 1.0
        await judges.close()

    with judging() as old, judging() as new:
        asyncio.run(ask(old.base_url, new.base_url))
        assert (len(old.requests), len(new.requests)) == (2, 2)


def test_ready_shows_a_judge_that_is_missing(project: Project) -> None:
    judged_route(project)
    with running(replay_of(TOLD)) as url:
        jury = Upstream("jury", "http://127.0.0.1:9/v1", "judge-9")
        main = {"main": Upstream("main", f"{url}/v1")}
        settings: dict[str, Any] = {"default_teacher": "main", "rubrics": {"tickets": RUBRIC}}
        with gateway(project, None, teachers=main, **settings) as one:
            assert "jury" in one.until("ready")["judge_faults"]["tickets"]
        with gateway(project, None, teachers={**main, "jury": jury}, **settings) as one:
            assert one.until("ready")["judge_faults"] == {}


@pytest.mark.parametrize("change", ["rubric", "gone"])
def test_live_judge_is_the_one_certified(
    project: Project, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    route = judged_route(project, rubric="Another." if change == "rubric" else RUBRIC)
    with judging() as jury:
        url = jury.base_url
        if change == "gone":
            with running(replay_of(TOLD)) as told:
                teachers = {"main": Upstream("main", f"{told}/v1")}
                (found,) = audits_of(project, route, ["bad"], url, teachers=teachers)
        else:
            (found,) = audits_of(project, route, ["bad"], url)
        assert jury.requests == []
    assert not found.is_judged
    assert "its check failed with SettingsError" in caplog.text
