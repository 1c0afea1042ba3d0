"""The judge of a certificate, asked again about single live answers.

In: a route whose certificate was judged by a model, a request, the student's answer and the
teacher's: the fresh one, and those recorded. Out: harm as the verdict found it (both orders, beside
the fresh one; what equals any is no harm and nobody is asked; what is left open is None, which a
certificate counts as harm), and the tokens that judging took. Invariants: what equals a recorded
answer asks nobody (test_live_judge_is_not_asked_of_an_answer_that_was_recorded); it is the judge
that was certified, to the wording of its prompt and rubric, or nobody is asked
(test_live_judge_is_the_one_certified); an outage is no judgement
(test_live_judge_that_is_out_says_nothing); a judge that moves is asked where own.toml says now
(test_live_judge_is_asked_where_the_settings_say_now).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ownweights.core.chat import Completion, Usage
from ownweights.core.errors import CompleterError, OwnError
from ownweights.core.project import Project
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.route import JUDGE, Route

if TYPE_CHECKING:
    from ownweights.teacher.client import TeacherClient
    from ownweights.verdict.judge import JudgeCheck


class Judged(NamedTuple):
    """What the judge found, and what it took; `is_out` where it could not be asked."""

    harm: float | None
    spent: Usage
    is_out: bool = False


@dataclass(frozen=True, slots=True)
class _Example:
    """One live request, as a judge takes it."""

    id: str
    unit: str
    request: Mapping[str, Any]
    references: Sequence[str]


class LiveJudges:
    """One client a judging teacher and its settings, for the life of the gateway."""

    def __init__(self, project: Project, settings: GatewaySettings) -> None:
        self._project, self._settings = project, settings
        self._clients: dict[Upstream, TeacherClient] = {}
        self._certified: dict[str, Mapping[str, Any]] = {}

    def follow(self, settings: GatewaySettings) -> None:
        """Go on with other settings; who is asked elsewhere now gets a client of its own."""
        self._settings = settings

    async def close(self) -> None:
        """Let go of every connection."""
        for client in self._clients.values():
            await client.close()

    async def harm(
        self, route: Route, request: Mapping[str, Any], answer: Completion, told: Sequence[str]
    ) -> Judged:
        """Whether the student's answer is worse than the first of `told`, and equal to none.

        Raises: OwnError when the judge that was certified cannot be had
        """
        check = await self._check(route)
        example = _Example("live", "live", request, told)
        is_out, harms = False, list[float | None]()
        try:
            harms = await check.judge_all([example], [answer], stage="live")
        except CompleterError:  # both questions failed
            is_out = True
        spent = check.judge.spent
        usage = Usage(spent.prompt_tokens, spent.completion_tokens)
        return Judged(harms[0] if harms else None, usage, is_out)

    async def faults(self, routes: Mapping[str, Route]) -> dict[str, str]:
        """Why the judge of a route that was certified by one cannot be asked, by workload."""
        found: dict[str, str] = {}
        for workload, route in routes.items():
            if route.check != JUDGE:
                continue
            try:
                await self._check(route)
            except OwnError as error:
                found[workload] = error.what
        return found

    async def _check(self, route: Route) -> JudgeCheck:
        """A judge that has cost nothing yet."""
        from ownweights.verdict.judge import Cascade, Judge, JudgeCheck, JudgeOptions
        from ownweights.verdict.judge.live import judge_names, refuse_other_judge

        if route.verdict_id not in self._certified:
            self._certified[route.verdict_id] = await asyncio.to_thread(
                _certified_judge, self._project, route.verdict_id
            )
        certified = self._certified[route.verdict_id]
        rubric = self._settings.rubrics.get(route.workload, "")
        options = JudgeOptions(concurrency=2, timeout_s=self._settings.timeout_s)
        judges = [
            Judge(self._client(name), self._model(name), name=name, rubric=rubric, options=options)
            for name in judge_names(certified)
        ]
        found = Cascade(judges)
        refuse_other_judge(certified, found.identity)
        return JudgeCheck(found)

    def _model(self, name: str) -> str:
        return self._settings.teachers[name].model

    def _client(self, name: str) -> TeacherClient:
        upstream = self._settings.teachers.get(name)
        if upstream is None:
            from ownweights.verdict.judge.live import missing_judge

            raise missing_judge(name)
        if upstream not in self._clients:
            from ownweights.teacher.client import TeacherClient  # its HTTP library loads slowly

            self._clients[upstream] = TeacherClient(
                upstream.base_url, model=upstream.model or None, api_key=upstream.key(),
                timeout_s=self._settings.timeout_s, kind=upstream.kind,
            )  # fmt: skip
        return self._clients[upstream]


def _certified_judge(project: Project, verdict_id: str) -> Mapping[str, Any]:
    from ownweights.verdict.store import load_verdict

    return load_verdict(project, verdict_id).subject.judge
