"""The demo's own traffic: drawn by seed, readable as traffic, and in part unknowable."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.requests import MODEL, SYSTEM, WORKLOAD, generate_requests
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, import_file

COUNT = 3000
UNKNOWABLE = {"where": {"day", "van"}, "owed": {"euro"}}  # action → what no message says


def ask_and_answer(line: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    answer = line["response"]["choices"][0]["message"]["content"]
    return line["request"]["messages"][-1]["content"], json.loads(answer)


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return list(generate_requests(COUNT, seed=1))


def test_generate_requests_depends_on_the_seed_alone(lines: list[dict[str, Any]]) -> None:
    random.seed(0)
    assert list(generate_requests(COUNT, seed=1)) == lines
    assert list(generate_requests(50, seed=1)) == lines[:50]  # more is only added
    other = [ask_and_answer(line)[0] for line in generate_requests(50, seed=2)]
    assert other != [ask_and_answer(line)[0] for line in lines[:50]]


def test_generate_requests_are_imported_whole(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    path = tmp_path / "parcels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:300]), "utf-8")
    with TrafficStore.open(Project(tmp_path)) as store:
        report = import_file(path, store)
        assert (report.read, report.added, report.skipped) == (300, 300, {})
        records = list(store.records(WORKLOAD, status="ok"))
    assert len(records) == 300
    assert {record.model for record in records} == {MODEL}
    assert len({record.prompt_hash for record in records}) == 1


def test_generate_requests_have_ids_of_their_own(lines: list[dict[str, Any]]) -> None:
    others = generate_requests(COUNT, seed=2)
    ids = [line["id"] for line in [*lines, *others]]
    assert len(set(ids)) == 2 * COUNT


def test_generate_requests_answer_in_the_form_that_is_asked_for(
    lines: list[dict[str, Any]],
) -> None:
    for line in lines:
        system, _ = line["request"]["messages"]
        assert system == {"role": "system", "content": SYSTEM}
        _, answer = ask_and_answer(line)
        assert answer.keys() == {"action", "details"}
        assert all(isinstance(value, str) and value for value in answer["details"].values())


def test_generate_requests_say_all_that_can_be_known(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        text, answer = ask_and_answer(line)
        hidden = UNKNOWABLE.get(answer["action"], set())
        for name, value in answer["details"].items():
            if name not in hidden:
                assert value in text


def test_generate_requests_are_unknowable_once_in_eight(lines: list[dict[str, Any]]) -> None:
    actions = Counter(ask_and_answer(line)[1]["action"] for line in lines)
    assert len(actions) == 7
    unknowable = sum(actions[action] for action in UNKNOWABLE)
    assert 0.10 < unknowable / COUNT < 0.15  # the weights give 0.12, ± 0.006 standard error


def test_generate_requests_hide_what_is_unknowable(lines: list[dict[str, Any]]) -> None:
    """No message of these kinds holds the hidden values, so that copying cannot find them."""
    seen = Counter[str]()
    for line in lines:
        text, answer = ask_and_answer(line)
        for name in UNKNOWABLE.get(answer["action"], ()):
            words = text.replace("?", " ").split()
            seen[name, answer["details"][name] in words] += 1  # type: ignore[index]
    assert all(not is_said for _, is_said in seen)


def test_generate_requests_know_of_one_parcel_one_thing(lines: list[dict[str, Any]]) -> None:
    """The teacher looks things up: what it says depends on the parcel, not on the call."""
    known: dict[tuple[str, str], dict[str, str]] = {}
    for seed in (1, 2, 3):
        for line in generate_requests(COUNT, seed):
            _, answer = ask_and_answer(line)
            if answer["action"] in UNKNOWABLE:
                key = (answer["action"], answer["details"]["parcel"])
                assert known.setdefault(key, answer["details"]) == answer["details"]
    assert len({details["day"] for details in known.values() if "day" in details}) == 6


def test_generate_requests_are_mostly_unlike_each_other(lines: list[dict[str, Any]]) -> None:
    texts = Counter(ask_and_answer(line)[0] for line in lines)
    assert len(texts) > 0.99 * COUNT


def test_generate_requests_of_none_are_none() -> None:
    assert list(generate_requests(0, seed=1)) == []
