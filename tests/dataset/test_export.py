"""A split as OpenAI fine-tuning lines comes back through the importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.dataset import export_split
from ownweights.traffic import TrafficStore, import_file
from tests.dataset.records import SYSTEM, built, many, record
from tests.dataset.test_build import asking


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.mark.parametrize("pruned", [True, False])
def test_export_split_writes_conversations(project: Project, tmp_path: Path, pruned: bool) -> None:
    dataset = built(project, many(40))
    file = tmp_path / "out.jsonl"
    examples = dataset.examples("train")
    assert export_split(dataset, "train", file, pruned=pruned) == (len(examples), 0)
    head = [] if pruned else [{"role": "system", "content": SYSTEM}]
    assert lines(file) == [
        {"messages": [*head, e.request["messages"][-1],
                      {"role": "assistant", "content": e.target}]}
        for e in examples
    ]  # fmt: skip


def test_export_split_comes_back_as_traffic(project: Project, tmp_path: Path) -> None:
    dataset = built(project, many(40))
    file = tmp_path / "out.jsonl"
    export_split(dataset, "train", file)
    with TrafficStore.open(project) as store:
        report = import_file(file, store, workload="again")
    assert (report.added, report.skipped) == (dataset.counts["train"], {})


def test_export_split_counts_what_has_no_answer(project: Project, tmp_path: Path) -> None:
    cut = record(asking("test"), id="cut", finish="length")
    whole = record(asking("test", skip=1), id="whole")
    assert export_split(built(project, [cut, whole]), "test", tmp_path / "x") == (1, 1)


def test_export_split_leaves_no_part_behind(project: Project, tmp_path: Path) -> None:
    dataset = built(project, many(9))
    (dataset.path / "train.jsonl").write_bytes(b"{broken\n")
    with pytest.raises(ValueError, match="is not an example"):
        export_split(dataset, "train", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_export_split_says_where_it_cannot_write(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "out.jsonl"
    with pytest.raises(InputError, match=f"{file}: cannot be written: No such file"):
        export_split(built(project, many(9)), "train", file)
