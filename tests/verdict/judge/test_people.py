"""The queue for people: written blind, read back checked, never overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from ownweights.core.errors import InputError
from ownweights.verdict.judge import read_labels, write_queue
from ownweights.verdict.judge.people import hash_labels
from tests.verdict.judge.judges import pair, pairs


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue.jsonl"


def lines(queue: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in queue.read_text().split("\n") if line]


def fill(queue: Path, label_of: Any) -> None:
    """Label every line as a person would: by what is written in it."""
    found = lines(queue)
    for line in found:
        line["label"] = label_of(line)
    queue.write_text("".join(json.dumps(line) + "\n" for line in found))


def wrong_one_loses(line: dict[str, Any]) -> str:
    for name in ("1", "2"):
        if line[f"answer_{name}"] == "It is 5.":
            return "2" if name == "1" else "1"
    return "tie"


def test_labels_survive_the_queue(queue: Path) -> None:
    given = pairs(40)
    assert write_queue(queue, given, why="to measure the judge") == 40
    fill(queue, wrong_one_loses)
    found = read_labels(queue, given)
    assert found == {one.id: ["loss" if one.answer == "It is 5." else "tie"] for one in given}


def test_queue_does_not_say_whose_answer_it_is(queue: Path) -> None:
    given = pairs(200, wrong_every=1)
    write_queue(queue, given, why="x")
    first = sum(line["answer_1"] == "It is 5." for line in lines(queue))
    assert stats.binomtest(first, 200).pvalue > 0.001
    assert set(lines(queue)[0]) == {
        "pair", "why", "by", "label", "request", "answer_1", "answer_2",
    }  # fmt: skip
    assert "student" not in queue.read_text()


def test_queue_keeps_labels_already_there(queue: Path) -> None:
    write_queue(queue, pairs(3), why="first")
    fill(queue, wrong_one_loses)
    before = queue.read_text()
    assert write_queue(queue, pairs(3), why="second") == 0
    assert queue.read_text() == before
    assert write_queue(queue, pairs(5), why="second") == 2
    assert queue.read_text().startswith(before)
    assert [line["why"] for line in lines(queue)] == ["first"] * 3 + ["second"] * 2


def test_labels_belong_to_the_pair_as_it_was(queue: Path) -> None:
    """Another answer by the student, or another request, is another pair: its label is not used."""
    write_queue(queue, [pair(8)], why="x")
    fill(queue, lambda line: "tie")
    assert read_labels(queue, [pair(8)]) == {"pair-8": ["tie"]}
    assert read_labels(queue, [pair(8, is_right=False), pair(9, id="pair-8")]) == {}


def test_labels_not_given_yet_are_none_and_cannot_say_is_empty(queue: Path) -> None:
    write_queue(queue, pairs(3), why="x")
    labels = iter(["", "cannot say", "tie"])
    fill(queue, lambda line: next(labels))
    assert read_labels(queue, pairs(3)) == {"pair-1": [], "pair-2": ["tie"]}


def test_labels_of_two_people_are_both_kept(queue: Path) -> None:
    write_queue(queue, [pair(8, is_right=False)], why="x")
    (line,) = lines(queue)
    worse = wrong_one_loses(line)
    both = [{**line, "by": "ada", "label": worse}, {**line, "by": "bob", "label": "tie"}]
    queue.write_text("".join(json.dumps(one) + "\n" for one in both))
    assert read_labels(queue, [pair(8, is_right=False)]) == {"pair-8": ["loss", "tie"]}
    queue.write_text("".join(json.dumps({**one, "by": "ada"}) + "\n" for one in both))
    with pytest.raises(InputError, match=r"'ada' labels the pair .* in two ways"):
        read_labels(queue, [pair(8, is_right=False)])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"pair": "a", "label": "A"}', "the label 'A' of pair 'a' is none"),
        ('{"pair": "a", "label": 1}', "the label 1 of pair 'a' is none"),
        ('{"pair": "a"}', "the label None of pair 'a' is none"),
        ('{"label": "1"}', "of pair None is none"),
        ('{"pair": "a", "label": "1"', "not JSON"),
        ("[]", "expected a JSON object"),
    ],
)
def test_labels_that_are_none_are_refused_with_their_line(
    queue: Path, line: str, words: str
) -> None:
    queue.write_text('{"pair": "b", "label": "1"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"queue.jsonl:2: .*") as caught:
        read_labels(queue, [pair(1)])
    assert words in str(caught.value)
    with pytest.raises(InputError):
        write_queue(queue, [pair(1)], why="x")


def test_hash_labels_names_the_labels_alone(queue: Path) -> None:
    assert hash_labels(queue) == ""
    write_queue(queue, pairs(2), why="x")
    assert hash_labels(queue) == ""
    fill(queue, lambda line: "tie")
    named = hash_labels(queue)
    write_queue(queue, pairs(4), why="more, without labels")
    assert hash_labels(queue) == named != ""
    fill(queue, lambda line: "1")
    assert hash_labels(queue) != named


def test_queue_holds_hostile_answers(queue: Path) -> None:
    given = [pair(1)]
    hostile = [type(given[0])("x", given[0].messages, 'a\n"b"\u2028\x00c', "d\ud800")]
    write_queue(queue, hostile, why="x")
    fill(queue, lambda line: "tie")
    assert read_labels(queue, hostile) == {"x": ["tie"]}
