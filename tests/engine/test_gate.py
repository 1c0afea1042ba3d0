"""The learned gate end to end on a real engine: states go over the wire, a verdict learns, a stream
is decided by the same number.
"""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from ownweights.core.chat import ChatRequest, CompletionChunk
from ownweights.core.project import Project
from ownweights.engine import EngineCompleter
from ownweights.route.decide import decide, decide_before
from ownweights.verdict import Claim, RunOptions, run_verdict_async
from ownweights.verdict.confidence import Confidence, risk_coverage_area
from ownweights.verdict.judged import read_judged
from tests.engine.conftest import Served
from tests.route.samples import route_of
from tests.verdict import worlds

DECODING = {"max_tokens": 2}
SCORE_TOLERANCE = 1e-3  # of a log-odds: batches of other sizes add up in another order


def examples(split: str, count: int) -> list[worlds.FakeExample]:
    """Prompts that end in one of two letters, which decides what the teacher said."""
    found = []
    for number in range(count):
        letter = "ab"[number % 2]
        one = worlds.example(number, split)
        digits = (number * 2 + (split == "certify")) * 7919 % 1000
        messages = [{"role": "user", "content": f"{digits:03d}{letter}"}]
        found.append(
            dataclasses.replace(one, messages=messages, target=letter, references=(letter,))
        )
    return found


class EqualLetter:
    """Harm where the prompt ended in b: whatever a random student says, this is to be learned."""

    name, is_graded = "letter", False

    def harm(self, answer: str | None, references: tuple[str, ...]) -> float:
        return float(references[0] == "b")


async def first_chunk(completer: EngineCompleter, request: ChatRequest) -> CompletionChunk:
    chunks = completer.stream(request)
    first = await anext(chunks)
    await chunks.aclose()  # pyright: ignore
    return first


def test_gate_learns_from_a_real_engine_and_decides_its_streams(
    thread: Served, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = Project(tmp_path_factory.mktemp("verdicts"))
    data = worlds.FakeDataset(
        {"develop": examples("develop", 160), "certify": examples("certify", 160)}
    )
    completer = thread.engine.completer(thread.students[0])
    options = RunOptions(streaming=True, decoding=DECODING)

    async def whole() -> None:
        found = await run_verdict_async(
            data, completer, project, thread.students[0],
            claim=Claim(alpha=0.3, beta=0.3), check=EqualLetter(), options=options,
        )  # fmt: skip
        assert found.issued, (found.reasons, found.calibration)
        gate = Confidence.from_dict(found.subject.confidence)
        assert len(gate.weights) == 32
        rows = read_judged(project.kind_dir("verdict") / found.id / "judged.jsonl")
        certify = [row for row in rows if row.split == "certify"]
        scores = np.array([row.score for row in certify])
        harms = np.array([row.counted_harm for row in certify])
        assert harms.mean() == 0.5
        assert risk_coverage_area(scores, harms) < 0.3

        route = route_of(confidence=found.subject.confidence, threshold=found.threshold)
        by_id = {row.id: row.score for row in certify}
        for one in data.splits["certify"][:20]:
            request = ChatRequest.of(one.messages, temperature=0, **DECODING)
            first = await first_chunk(completer, request)
            before = decide_before(route, first.features)
            after = decide(route, await completer.complete(request))
            assert before.score == pytest.approx(by_id[one.id], abs=SCORE_TOLERANCE)
            assert after.score == pytest.approx(by_id[one.id], abs=SCORE_TOLERANCE)
        await completer.close()

    asyncio.run(whole())


def test_agreement_of_a_real_engine_repeats_itself(thread: Served) -> None:
    from ownweights.verdict import check_named
    from ownweights.verdict.confidence.agreement import complete_with_agreement

    completer = thread.engine.completer(thread.students[1])
    requests = [
        ChatRequest.of([{"role": "user", "content": text}], temperature=0, max_tokens=1)
        for text in ("one", "two", "three", "four", "five")
    ]

    async def once() -> list[float | None]:
        done = await asyncio.gather(*(
            complete_with_agreement(completer, one, check_named("exact"), samples=8)
            for one in requests
        ))  # fmt: skip
        await completer.close()
        return [one.features.agreement for one in done if one.features]

    first = asyncio.run(once())
    assert first == asyncio.run(once())
    assert all(share is not None and share * 8 == round(share * 8) for share in first)
    assert len(set(first)) > 1
