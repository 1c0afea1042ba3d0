"""The student asked again: what is asked, how it is counted, and what a missing sample means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.errors import CompleterError, CompleterTimeout, ContextTooLong, Ineligible
from ownweights.verdict import check_named
from ownweights.verdict.confidence.agreement import (
    TEMPERATURE,
    agreement_of,
    complete_with_agreement,
)
from tests.fakes import ScriptedTeacher
from tests.verdict.confidence.state_worlds import features

REQUEST = ChatRequest.of([{"role": "user", "content": "q"}], temperature=0, max_tokens=9)
EXACT, JSON = check_named("exact"), check_named("json")


def by_seed(texts: dict[int, str | Exception]) -> ScriptedTeacher:
    """Says by seed what it is told to; without a seed, the greedy answer."""

    def answer(request: ChatRequest) -> Completion:
        said = texts.get(request.body.get("seed", 0), "greedy")
        if isinstance(said, Exception):
            raise said
        return Completion(said, "stop", features=features(-0.1))

    return ScriptedTeacher(answer)


def ask(teacher: ScriptedTeacher, samples: int, check: object = EXACT) -> Completion:
    return asyncio.run(
        complete_with_agreement(teacher, REQUEST, check, samples=samples)  # pyright: ignore
    )


def test_agreement_asks_greedily_and_then_by_seed() -> None:
    teacher = by_seed({})
    found = ask(teacher, 3)
    greedy, *sampled = teacher.asked
    assert greedy is REQUEST
    assert [one.body["seed"] for one in sampled] == [1, 2, 3]
    assert {one.body["temperature"] for one in sampled} == {TEMPERATURE}
    assert all(one.body["max_tokens"] == 9 for one in sampled)
    assert (found.text, found.features and found.features.agreement) == ("greedy", 1.0)


def test_agreement_is_the_share_that_says_the_same() -> None:
    found = ask(by_seed({1: "greedy", 2: "other", 3: " greedy\n", 4: "Greedy"}), 4)
    assert found.features is not None
    assert found.features.agreement == 0.5
    assert found.features.token_logprobs.tolist() == features(-0.1).token_logprobs.tolist()


def test_agreement_is_as_the_check_sees_it() -> None:
    texts = ['{"b": 2, "a": 1.0}', '{"a": 1, "b": 3}', "no json", '{"a":1,"b":2}']
    assert agreement_of('{"a": 1, "b": 2}', texts, JSON) == 0.5
    assert agreement_of('{"a": 1, "b": 2}', texts, EXACT) == 0.0


def test_agreement_with_what_the_check_cannot_read_is_none() -> None:
    assert agreement_of("not json", ["not json"], JSON) == 0.0
    assert agreement_of("", [""], EXACT) == 0.0
    assert agreement_of(None, [None], EXACT) == 0.0
    assert agreement_of("a", [], EXACT) == 0.0


class Half:
    """A check that sees half a harm in everything."""

    def harm(self, answer: str | None, references: object) -> float:
        return 0.5


def test_agreement_of_a_graded_check_is_graded() -> None:
    assert agreement_of("a", ["b", "c", "a"], Half()) == 0.5


@pytest.mark.parametrize(
    "fault", [CompleterError("gone"), CompleterTimeout("slow"), ContextTooLong(9, 8),
              Ineligible("seed", "no seed here")],
)  # fmt: skip
def test_agreement_is_unknown_where_a_sample_did_not_come(fault: Exception) -> None:
    found = ask(by_seed({2: fault}), 3)
    assert found.text == "greedy"
    assert found.features is not None
    assert found.features.agreement is None


def test_agreement_raises_what_the_request_itself_meets() -> None:
    with pytest.raises(CompleterError, match="gone"):
        ask(by_seed({0: CompleterError("gone")}), 2)


def test_agreement_of_an_answer_without_features_stays_without() -> None:
    assert ask(ScriptedTeacher("plain"), 2).features is None


def test_agreement_is_the_same_again() -> None:
    """Nothing but the request decides: asked twice, beside others, it is one number."""
    count = iter(range(100))
    script: Callable[[ChatRequest], Completion] = lambda request: Completion(  # noqa: E731
        str(request.body.get("seed", 0) % 2) + "x" * (next(count) * 0),
        "stop",
        features=features(-0.1),
    )
    teacher = ScriptedTeacher(script)

    async def many() -> list[Completion]:
        return await asyncio.gather(
            *(complete_with_agreement(teacher, REQUEST, EXACT, samples=5) for _ in range(6))
        )

    found = {one.features and one.features.agreement for one in asyncio.run(many())}
    assert found == {0.4}
