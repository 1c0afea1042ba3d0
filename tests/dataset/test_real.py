"""Datasets of public traffic: no leak, little lost, and references kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.dataset import Dataset, build_dataset
from ownweights.dataset.dedupe import HELD_OUT, STUDIED
from ownweights.dataset.normalise import NEAR_JACCARD, jaccard, shingles
from ownweights.dataset.options import DatasetOptions
from ownweights.dataset.prompt import comparison_key
from ownweights.dataset.split import SPLITS
from tests.dataset.records import real_records

WORKLOADS = {
    "assistant": "assistant", "commands": "commands", "describe": "describe", "sql-gpt4": "sql",
    "airline-gpt4o": "airline",
}  # fmt: skip
OPTIONS = DatasetOptions(allow_teachers=("gpt-4", "gpt-4o"))


@pytest.fixture(scope="module")
def datasets(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    project = Project(tmp_path_factory.mktemp("real"))
    return {
        name: build_dataset(
            real_records(test_data, name), project, workload=workload, options=OPTIONS
        )
        for name, workload in WORKLOADS.items()
    }


def questions(dataset: Dataset, splits: Iterable[str]) -> set[str]:
    return {comparison_key(e.request) for split in splits for e in dataset.iter_examples(split)}


@pytest.mark.parametrize("name", WORKLOADS)
def test_real_dataset_has_no_unit_in_two_splits(datasets: dict[str, Dataset], name: str) -> None:
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        for example in datasets[name].iter_examples(split):
            homes[example.unit].add(split)
    assert Counter(len(splits) for splits in homes.values()).keys() == {1}


@pytest.mark.parametrize("name", ["commands", "sql-gpt4"])
def test_build_dataset_matches_brute_force_on_leaks(
    datasets: dict[str, Dataset], name: str
) -> None:
    """Every pair of a studied and a held-out question is looked at, with the plain definition."""
    studied = questions(datasets[name], STUDIED)
    held_out = questions(datasets[name], HELD_OUT)
    assert studied.isdisjoint(held_out)
    index: defaultdict[str, list[str]] = defaultdict(list)
    for question in studied:
        for piece in shingles(question):
            index[piece].append(question)
    for question in sorted(held_out)[::8]:
        pieces = shingles(question)
        shared = Counter(other for piece in pieces for other in index[piece])
        near = [o for o, n in shared.items() if n >= NEAR_JACCARD * len(pieces)]
        assert all(jaccard(pieces, shingles(other)) < NEAR_JACCARD for other in near)


@pytest.mark.parametrize(
    ("name", "like_held_out", "repeats"),
    [("assistant", 64, 240), ("commands", 66, 163), ("describe", 1882, 53), ("sql-gpt4", 4, 0)],
)
def test_real_dataset_loses_what_the_documents_say(
    datasets: dict[str, Dataset], test_data: Path, name: str, like_held_out: int, repeats: int
) -> None:
    dataset = datasets[name]
    removed: Counter[str] = Counter()
    for reasons in dataset.card["facts"]["removed"].values():
        removed.update(reasons)
    assert removed["same_as_held_out"] == 0  # a split by question keeps equal ones together
    assert removed["near_held_out"] == like_held_out
    assert removed["repeat"] + removed["near_repeat"] == repeats
    num_records = len(real_records(test_data, name))
    assert removed.total() + sum(dataset.counts.values()) == num_records
    assert len(dataset.removed()) == removed.total()


def test_real_assistant_has_its_sizes(datasets: dict[str, Dataset]) -> None:
    sizes = {"train": 10215, "develop": 1084, "certify": 1048, "test": 1133}
    assert datasets["assistant"].counts == sizes


def test_real_describe_keeps_its_references(datasets: dict[str, Dataset]) -> None:
    dataset = datasets["describe"]
    examples = [e for split in SPLITS for e in dataset.iter_examples(split)]
    several = [e for e in examples if len(e.references) > 1]
    assert len(several) > 0.9 * len(examples)
    assert all(e.references[0] == e.target for e in examples)
    by_question: defaultdict[str, set[str]] = defaultdict(set)
    for example in dataset.iter_examples("train"):
        by_question[example.request["messages"][-1]["content"]].add(example.target)
    assert max(len(targets) for targets in by_question.values()) > 10


def test_real_describe_says_what_its_template_cost(datasets: dict[str, Dataset]) -> None:
    facts = datasets["describe"].card["facts"]
    assert facts["removed"]["train"]["near_held_out"] == 1724
    assert facts["counts"]["train"] == 1785
    assert any("1724 of 3553 train examples ask what a held-out" in w for w in facts["warnings"])


def test_real_sql_keeps_its_changing_system_prompt(datasets: dict[str, Dataset]) -> None:
    assert datasets["sql-gpt4"].prune is None


def test_real_airline_is_split_by_its_forty_tasks(datasets: dict[str, Dataset]) -> None:
    facts = datasets["airline-gpt4o"].card["facts"]
    assert datasets["airline-gpt4o"].split_by == "meta:task_id"
    assert facts["split_by_reason"] == "every record has a task_id"
    assert sum(facts["units"].values()) == 40
    assert facts["units"]["certify"] == 6


def test_real_airline_keeps_tool_calls_for_judging_alone(datasets: dict[str, Dataset]) -> None:
    dataset = datasets["airline-gpt4o"]
    assert dataset.card["facts"]["held_out_only"]["certify"] == {"tool_call": 102, "tool_loop": 181}
    roles = {e.request["messages"][-1]["role"] for e in dataset.iter_examples("train")}
    assert roles == {"user"}
