"""Continued pre-training: documents become windows of which every token is trained."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.student.examples import pad_rows
from ownweights.student.objective.text import read_documents, window_rows
from ownweights.student.study import load_base
from ownweights.student.train import train_student
from ownweights.student.trainer import StepReport
from tests.student.zoo import QUICK, make_project
from tests.tiny import BASE_NAME, BOS_ID, CONFIG, END_ID, make_base

TEXT = replace(QUICK, objective="text", epochs=1)
BOOK = "The fox lives by the mill. " * 40


def test_window_rows_tile_the_documents(tmp_path: Path) -> None:
    make_base(tmp_path / BASE_NAME)
    base = load_base(Project(tmp_path), BASE_NAME)
    rows = window_rows(base, [BOOK, "an owl"])
    ids = [token for row in rows for token in row.ids.tolist()]
    encode = base.tokenizer.encode
    assert ids == [BOS_ID, *encode(BOOK), END_ID, BOS_ID, *encode("an owl"), END_ID]
    window = CONFIG.max_position_embeddings
    assert {len(row.ids) for row in rows[:-1]} == {window}
    batch = pad_rows(rows[:2])
    assert len(batch.targets) == 2 * (window - 1)  # every token that has one before it


def test_text_student_learns_its_book(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    (tmp_path / "book.txt").write_text(BOOK, "utf-8")
    reports: list[StepReport] = []
    options = replace(TEXT, text="book.txt", epochs=60, rank=8)
    made = train_student(dataset, project, options=options, on_step=reports.append)
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert made.card["facts"]["documents"] == 1
    assert len(made.card["identity"]["text_sha256"]) == 64


def test_text_without_a_file_reads_the_answers(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    made = train_student(dataset, project, options=TEXT)
    assert made.card["facts"]["documents"] == dataset.counts["train"]


def test_read_documents_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl.gz"
    lines = [json.dumps({"text": text}) for text in ("one", "two")]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert list(read_documents(path)) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.jsonl", b'{"txt": "x"}\n', "a.jsonl:1: expected an object with a text under 'text'"),
        ("a.jsonl", b"{\n", "a.jsonl:1: "),
        ("a.txt", b"\xff\xfe", "is not UTF-8 text"),
        ("b.txt", None, "cannot be read: No such file"),
    ],
)
def test_read_documents_refuses(tmp_path: Path, name: str, raw: bytes | None, message: str) -> None:
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError) as caught:
        list(read_documents(tmp_path / name))
    assert message in str(caught.value)


def test_text_refuses_nothing_to_read(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n", "utf-8")
    with pytest.raises(InputError, match="the documents hold no text"):
        train_student(dataset, project, options=replace(TEXT, text="empty.txt"))
