"""Pairs of answers: from what callers said, from verdicts, from files; never near held-out ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.database import open_database
from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.dataset import Dataset, build_dataset, split_of
from ownweights.dataset.pairs import Pair, gather_pairs, read_pairs, verdict_pairs
from ownweights.dataset.prompt import prompt_key
from ownweights.traffic import Record, TrafficStore
from ownweights.traffic.feedback import (
    Feedback,
    feedback_of,
    keep_feedback,
    parse_feedback,
)
from tests.student.zoo import WORKLOAD, make_records, record_of


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    project = Project(tmp_path_factory.mktemp("home"))
    return build_dataset(make_records(), project, workload=WORKLOAD)


def said(record: Record, **body: Any) -> Feedback:
    return parse_feedback({"request_id": record.id, **body})


def asked(text: str, answer: str) -> Record:
    """A record that a student answered."""
    return replace(record_of(text, answer, ""), role="student", source_id=None)


WORDS = ("beast", "river", "stone", "cloud", "lamp", "violin", "pepper")


def words_of(dataset: Dataset, split: str) -> list[str]:
    """Questions whose own prompt falls into a split, none of them in the dataset."""
    identity = dataset.card["identity"]
    return [
        text
        for text in (" ".join(words) for words in itertools.permutations(WORDS, 4))
        if split_of(f"prompt:{prompt_key(text)}", identity["fractions"], identity["salt"]) == split
    ]  # fmt: skip


def short(pairs: Sequence[Pair]) -> list[tuple[str, str, str, str]]:
    return sorted((one.split, one.chosen, one.rejected, one.source) for one in pairs)


def test_gather_pairs_of_demonstrations(dataset: Dataset) -> None:
    text, other = words_of(dataset, "train")[0], words_of(dataset, "develop")[0]
    records = [asked(text, "a fox"), asked(other, "an owl")]
    feedback = [
        said(records[0], demonstration="a red fox"),
        said(records[1], demonstration={"role": "assistant", "content": "one owl"}),
    ]
    pairs = gather_pairs(dataset, records, feedback)
    assert short(pairs) == [
        ("develop", "one owl", "an owl", "demonstration"),
        ("train", "a red fox", "a fox", "demonstration"),
    ]
    (pair,) = (one for one in pairs if one.split == "train")
    assert dataset.prune is not None and dataset.prune.drops_system
    assert [message["role"] for message in pair.messages] == ["user"]  # as the student reads it


def test_gather_pairs_of_ratings(dataset: Dataset) -> None:
    """The best mean wins; ratings under different names are not compared."""
    text = words_of(dataset, "train")[0]
    records = [asked(text, answer) for answer in ("good", "fair", "bad", "good")]
    values = (5, 3, 1, 4)
    feedback = [said(r, value=v, name="stars") for r, v in zip(records, values, strict=True)]
    feedback.append(said(records[2], value=9, name="speed"))
    assert short(gather_pairs(dataset, records, feedback)) == [
        ("train", "good", "bad", "rating"), ("train", "good", "fair", "rating"),
    ]  # fmt: skip


def test_gather_pairs_of_a_denied_answer(dataset: Dataset) -> None:
    example = dataset.examples("train")[0]
    question = example.request["messages"][-1]["content"]
    record = asked(question, "a newt")
    pairs = gather_pairs(dataset, [record], [said(record, value=False)])
    assert short(pairs) == [("train", example.target, "a newt", "denied")]
    assert gather_pairs(dataset, [record], [said(record, value=True)]) == []


def test_pairs_never_touch_held_out_requests(dataset: Dataset) -> None:
    """Neither what certify and test ask, nor what is near it, nor units that fall there."""
    held = [e for split in ("certify", "test") for e in dataset.examples(split)]
    assert held
    questions = [e.request["messages"][-1]["content"] for e in held]
    questions += [question.upper() + "!" for question in questions]
    questions += words_of(dataset, "certify")[:3] + words_of(dataset, "test")[:3]
    records = [asked(question, "wrong") for question in questions]
    feedback = [said(record, demonstration="right") for record in records]
    assert gather_pairs(dataset, records, feedback) == []


def test_gather_pairs_leaves_out_what_says_nothing(dataset: Dataset) -> None:
    text = words_of(dataset, "train")[0]
    same, cut = asked(text, "a fox"), asked(text, "a fo")
    assert cut.response is not None
    cut = replace(cut, status="partial")
    other = replace(asked(text, "a fox"), workload="other")
    records = [same, cut, other]
    feedback = [said(record, demonstration="a fox") for record in records]
    feedback.append(parse_feedback({"session": "s", "demonstration": "an owl"}))
    feedback.append(said(same, comment="well said"))
    call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    feedback.append(said(same, demonstration=call))
    assert gather_pairs(dataset, records, feedback) == []


def test_the_same_pair_counts_once(dataset: Dataset) -> None:
    text = words_of(dataset, "train")[0]
    records = [asked(text, "a fox") for _ in range(3)]
    feedback = [said(record, demonstration="a red fox") for record in records]
    assert len(gather_pairs(dataset, records, feedback)) == 1


def test_gather_pairs_reads_what_the_store_holds(tmp_path: Path, dataset: Dataset) -> None:
    project = Project(tmp_path)
    record = asked(words_of(dataset, "train")[0], "a fox")
    with TrafficStore.open(project) as store, open_database(project.database) as database:
        store.add([record])
        keep_feedback(database, said(record, demonstration="a red fox"))
        keep_feedback(database, parse_feedback({"session": "s", "value": True}))
        found = feedback_of(database)
        assert [one.kind for one in found] == ["demonstration"]
        (pair,) = gather_pairs(dataset, store.records(WORKLOAD), found)
    assert (pair.chosen, pair.rejected) == ("a red fox", "a fox")


def test_verdict_pairs_never_learn_from_certify(dataset: Dataset) -> None:
    examples = {split: dataset.examples(split)[0] for split in ("train", "develop", "certify")}
    answers = [{"id": e.id, "answer": "a newt"} for e in examples.values()]
    harms = {e.id: 1.0 for e in examples.values()}
    pairs = verdict_pairs(dataset, answers, harms)
    assert {(one.split, one.chosen) for one in pairs} == {
        (split, examples[split].target) for split in ("train", "develop")
    }
    fine = examples["train"].id
    assert verdict_pairs(dataset, [{"id": fine, "answer": "a newt"}], {fine: 0.0}) == []
    assert verdict_pairs(dataset, [{"id": fine, "answer": None}], {fine: 1.0}) == []
    assert verdict_pairs(dataset, [{"id": fine, "answer": "a newt"}], {fine: None}) == []


# --- files


def line(**changes: Any) -> str:
    fields = {"messages": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}
    return json.dumps({**fields, **changes})


def test_read_pairs_places_them_by_the_datasets_rule(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "pairs.jsonl"
    wanted = {split: words_of(dataset, split)[0] for split in ("train", "develop", "certify")}
    lines = [line(messages=[{"role": "user", "content": text}]) for text in wanted.values()]
    path.write_text("\n".join(lines), "utf-8")
    told: list[tuple[int, int]] = []
    pairs = read_pairs(dataset, path, on_left_out=lambda num, total: told.append((num, total)))
    assert told == [(1, 3)]
    assert short(pairs) == [("develop", "a", "b", "file"), ("train", "a", "b", "file")]
    assert pairs[0].to_json()["chosen"] == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"messages": []}', "a pair lacks chosen, rejected"),
        (line(messages="q"), "'messages' must be a non-empty list"),
        (line(chosen=" "), "chosen must be a text that is not empty"),
        (line(rejected=3), "rejected must be a text that is not empty"),
        ("{", "pairs.jsonl:1"),
        (" \n", "holds no pair"),
    ],
)
def test_read_pairs_refuses(tmp_path: Path, dataset: Dataset, text: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        read_pairs(dataset, path)
    assert message in str(caught.value)
