"""A judge compares the student's answer with the teacher's, in both orders.

In: pairs of answers to one request each, and any Completer to judge them. Out: a Comparison a pair,
from the student's point of view:

    shown first   shown second   outcome
    better        better         win           (tie, loss: likewise)
    anything else that was read  undecided: the order decided, not the answers
    a reply that is missing or cannot be read: None, could not judge

Undecided is not a tie between equals, and None is neither; a certificate counts both as harm.
Invariants: at most `concurrency` questions at once, none put twice
(test_judge_keeps_to_its_concurrency, test_judge_resumes_without_asking_again); a failed call is
never a verdict (test_judge_failure_is_could_not_judge), and an outage is none either
(test_judge_outage_is_raised_and_resumed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownweights.core.artefact import hash_json
from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import (
    CompleterError,
    CompleterRefused,
    CompleterTimeout,
    ContextTooLong,
    Ineligible,
    SettingsError,
)
from ownweights.verdict.judge.cache import Reply, ReplyCache
from ownweights.verdict.judge.prompt import (
    DEFAULT_RUBRIC,
    FIRST,
    SECOND,
    TIE,
    judge_messages,
    prompt_hash,
    read_verdict,
    request_text,
    text_hash,
)

WIN, TIE_OUTCOME, LOSS, UNDECIDED = "win", TIE, "loss", "undecided"
Progress = Callable[[float, float | None, str], None]  # (done, total, stage)
STAGE = "judge"
# more failed calls than this are an outage, which says nothing about the answers: better to stop
# and go on later than to count them as harm and use up the certify data
MAX_LOST_FRAC, MIN_LOST = 0.1, 10
UNFIT = (400, 413, 422)  # statuses about the request itself: it would fail again


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one request: the student's, and the teacher's to compare it with."""

    id: str
    messages: Sequence[Mapping[str, Any]]
    answer: str
    reference: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a pair: win, tie, loss or undecided for the student; None: could not judge.

    `said` is what each order gave, the student shown first and then second; `why` says what stood
    in the way of a judgement.
    """

    id: str
    outcome: str | None
    said: tuple[str | None, str | None] = (None, None)
    why: str = ""
    by: str = ""

    @property
    def is_open(self) -> bool:
        """Whether somebody else should look at it."""
        return self.outcome in (UNDECIDED, None)

    @property
    def harm(self) -> float | None:
        """1 where the student's answer is worse, 0 where it is not, None where nobody can say."""
        return None if self.is_open else float(self.outcome == LOSS)


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """How a judge is asked; prices are dollars per million tokens, None: not known."""

    concurrency: int = 8
    timeout_s: float = 60.0
    max_tokens: int = 512
    max_chars: int = 200_000  # of a whole prompt; a longer one cannot be judged
    input_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What judging has cost: `calls` that were answered now, `cached` ones that were not asked."""

    calls: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    key: str
    messages: list[dict[str, str]] | None
    why: str = ""


class Judge:
    """Compares pairs by asking a model; `name` and `model` are what certificates call it."""

    def __init__(
        self,
        completer: Completer,
        model: str,
        *,
        name: str = "",
        rubric: str = "",
        options: JudgeOptions | None = None,
        cache: ReplyCache | None = None,
    ) -> None:
        if not model:
            raise SettingsError(
                "a judge must name its model: a certificate says who judged",
                hint='set model = "..." in its [teacher.<name>]',
            )
        self.name, self.model = name or model, model
        self.rubric = rubric.strip() or DEFAULT_RUBRIC
        self.options = options or JudgeOptions()
        self._completer = completer
        self._cache = ReplyCache() if cache is None else cache
        self._counts = {"calls": 0, "cached": 0, "failed": 0}
        self._tokens = [0, 0]
        self._models: set[str] = set()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything whose change makes it another judge."""
        return {
            "name": self.name, "model": self.model, "prompt": prompt_hash(),
            "rubric": text_hash(self.rubric), "decoding": self._decoding,
        }  # fmt: skip

    @property
    def answered_by(self) -> tuple[str, ...]:
        """The models that the endpoint said it was."""
        return tuple(sorted(self._models))

    @property
    def spent(self) -> Spent:
        """What judging has cost so far."""
        prices = self.options.input_usd_per_mtok, self.options.output_usd_per_mtok
        usd = None
        if prices[0] is not None and prices[1] is not None:
            usd = (self._tokens[0] * prices[0] + self._tokens[1] * prices[1]) / 1e6
        return Spent(**self._counts, prompt_tokens=self._tokens[0],
                     completion_tokens=self._tokens[1], usd=usd)  # fmt: skip

    async def compare(
        self, pairs: Sequence[Pair], *, on_progress: Progress | None = None
    ) -> list[Comparison]:
        """The outcome of each pair, in their order.

        Raises: CompleterError when the judge is out: all calls failed, or too many to go on. What
        was answered is kept, and the same call again goes on from there
        """
        asked = [(self._question(pair), self._question(pair, swapped=True)) for pair in pairs]
        wanted = {q.key: q for both in asked for q in both if q.messages is not None}
        waiting = [q for q in wanted.values() if self._cache.get(q.key) is None]
        self._counts["cached"] += len(wanted) - len(waiting)
        failures = await self._ask_all(waiting, on_progress)
        for question in wanted.values():
            if reply := self._cache.get(question.key):
                self._models.add(reply.model or self.model)
        return [
            self._comparison(pair, both, failures) for pair, both in zip(pairs, asked, strict=True)
        ]

    @property
    def _decoding(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": self.options.max_tokens}

    def _question(self, pair: Pair, *, swapped: bool = False) -> _Question:
        request = request_text(pair.messages)
        if request is None:
            return _Question("", None, "the request holds parts that text cannot show")
        shown = (pair.reference, pair.answer) if swapped else (pair.answer, pair.reference)
        messages = judge_messages(request, *shown, self.rubric)
        if sum(len(message["content"]) for message in messages) > self.options.max_chars:
            return _Question("", None, "too long to show")
        return _Question(hash_json([self.name, self.model, self._decoding, messages]), messages)

    async def _ask_all(
        self, questions: Sequence[_Question], on_progress: Progress | None
    ) -> dict[str, CompleterError | ContextTooLong | Ineligible]:
        failures: dict[str, CompleterError | ContextTooLong | Ineligible] = {}
        waiting, num_done = iter(questions), 0

        async def worker() -> None:
            nonlocal num_done
            for question in waiting:
                try:
                    self._take(question, await self._ask(question))
                except (CompleterError, ContextTooLong, Ineligible) as error:
                    failures[question.key] = error
                    self._counts["failed"] += 1
                num_done += 1
                if on_progress:
                    on_progress(num_done, len(questions), STAGE)

        await asyncio.gather(*(worker() for _ in range(max(1, self.options.concurrency))))
        lost = [error for error in failures.values() if _is_outage(error)]
        is_many = len(lost) >= MIN_LOST and len(lost) > MAX_LOST_FRAC * len(questions)
        if is_many or (lost and len(lost) == len(questions)):
            raise lost[0]
        return failures

    async def _ask(self, question: _Question) -> Completion:
        body = {"model": self.model, "messages": question.messages, **self._decoding}
        return await self._completer.complete(ChatRequest(body), timeout_s=self.options.timeout_s)

    def _take(self, question: _Question, done: Completion) -> None:
        usage = done.usage
        said = read_verdict(done.text) if done.finish_reason == "stop" else None
        self._counts["calls"] += 1
        self._tokens[0] += usage.prompt_tokens
        self._tokens[1] += usage.completion_tokens
        reply = Reply(said, done.model, usage.prompt_tokens, usage.completion_tokens)
        self._cache.put(question.key, reply)

    def _comparison(
        self, pair: Pair, both: tuple[_Question, _Question], failures: Mapping[str, Exception]
    ) -> Comparison:
        said: list[str | None] = []
        reasons: list[str] = []
        for question, ours in zip(both, (FIRST, SECOND), strict=True):
            reply = self._cache.get(question.key)
            said.append(None if reply is None else _ours(reply.said, ours))
            if said[-1] is None:
                failure = failures.get(question.key)
                reasons.append(question.why or (_words(failure) if failure else "no verdict in it"))
        outcome = None if None in said else said[0] if said[0] == said[1] else UNDECIDED
        return Comparison(pair.id, outcome, (said[0], said[1]), " / ".join(reasons), self.name)


def _ours(said: str | None, ours: str) -> str | None:
    """A verdict on places as one on the student, who stood in the place `ours`."""
    if said in (None, TIE):
        return said
    return WIN if said == ours else LOSS


def _is_outage(error: Exception) -> bool:
    is_unfit = isinstance(error, CompleterRefused) and error.status in UNFIT
    return isinstance(error, CompleterError) and not is_unfit


def _words(failure: Exception) -> str:
    if isinstance(failure, CompleterTimeout):
        return "timed out"
    if isinstance(failure, CompleterRefused):
        return f"refused: {failure.status}"
    return "too long for the judge" if isinstance(failure, ContextTooLong) else "failed"
