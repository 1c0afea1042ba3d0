"""Which recorded requests become canaries."""

from __future__ import annotations

import random

from ownweights.verdict.drift.baseline import Canary
from ownweights.verdict.drift.canaries import pick_canaries
from tests.traffic.samples import answer, ask, make


def ids(found: list[Canary]) -> list[str]:
    return [canary.id for canary in found]


def records(count: int, workload: str = "w") -> list[object]:
    return [make(f"question {i}", f"answer {i}", workload=workload) for i in range(count)]


def test_pick_canaries_ignores_the_order_of_records() -> None:
    rows = records(30)
    found = pick_canaries(rows, 10, seed=1)
    random.Random(0).shuffle(rows)
    assert ids(pick_canaries(rows, 10, seed=1)) == ids(found)
    assert len(found) == 10
    assert ids(pick_canaries(rows, 10, seed=2)) != ids(found)


def test_pick_canaries_takes_workloads_in_turn() -> None:
    rows = [*records(30, "large"), *records(3, "small")]
    found = [canary.workload for canary in pick_canaries(rows, 10)]
    assert found[:6] == ["large", "small"] * 3
    assert found[6:] == ["large"] * 4


def test_pick_canaries_asks_nothing_twice_and_knows_all_answers() -> None:
    rows = [make("a", "one"), make("a", "two"), make("a", "one"), make("b", "three")]
    found = {canary.references for canary in pick_canaries(rows, 10)}
    assert found == {("one", "two"), ("three",)}


def test_pick_canaries_are_the_request_as_it_was_without_streaming() -> None:
    row = make("a", "one")
    row.request.update(ask("a", stream=True, stream_options={"include_usage": True}, top_p=0.5))
    (found,) = pick_canaries([row], 10)
    assert found.body == ask("a", top_p=0.5)
    assert found.prompt == "a"


def test_pick_canaries_leaves_out_answers_without_text() -> None:
    tool = make("tool")
    tool.response.update(answer(None, tool_calls=[{"id": "1"}]))  # type: ignore[union-attr]
    assert [c.prompt for c in pick_canaries([tool, make("text")], 10)] == ["text"]


def test_pick_canaries_checks_json_where_all_answers_are() -> None:
    rows = [make("a", '{"a": 1}', workload="j"), make("b", "[2]", workload="j")]
    assert {canary.check for canary in pick_canaries(rows, 9)} == {"json"}
    rows.append(make("c", "no JSON", workload="j"))
    assert {canary.check for canary in pick_canaries(rows, 9)} == {"exact"}


def test_pick_canaries_from_nothing_is_nothing() -> None:
    assert pick_canaries([], 10) == []
