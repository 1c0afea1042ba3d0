"""Traffic out to files, and back."""

from __future__ import annotations

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, import_file, make_record
from ownweights.traffic.exporter import export_file, export_line
from tests.traffic.samples import answer, ask, make

RECORDS = [
    make("one", "1", source_id="a", session="s", metadata={"gold": "x\u2028y"}, role="imported"),
    make_record(
        ask("two", tools=[{"name": "f"}], temperature=0.5),
        answer(None, tool_calls=[{"id": "1"}], finish_reason="tool_calls"),
        role="teacher",
        workload="other",
    ),
    make_record(ask("three"), answer("cut", finish_reason="length"), role="student"),
]


def lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_export_own_comes_back_the_same(tmp_path: Path, name: str) -> None:
    assert export_file(RECORDS, tmp_path / name, "own") == 3
    with TrafficStore.open(Project(tmp_path / "p")) as store:
        assert import_file(tmp_path / name, store).added == 3
        back = list(store.records())
        assert import_file(tmp_path / name, store).duplicates == 3
    for old, new in zip(RECORDS, back, strict=True):
        assert (new.request, new.response, new.status) == (old.request, old.response, old.status)
        assert (new.workload, new.session) == (old.workload, old.session)
        assert new.source_id == (old.source_id or old.id)
        assert new.metadata.items() >= old.metadata.items()
        assert old.role == "imported" or new.at == old.at
    assert export_file(back, tmp_path / "again.jsonl", "own") == 3
    assert [{**line, "at": 0} for line in lines(tmp_path / "again.jsonl")] == [
        {**line, "at": 0} for line in lines(tmp_path / name)
    ]


def test_export_openai_holds_whole_answers_alone(tmp_path: Path) -> None:
    assert export_file(RECORDS, tmp_path / "x.jsonl", "openai") == 2
    first, second = lines(tmp_path / "x.jsonl")
    assert [message["role"] for message in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"][-1] == {"role": "assistant", "content": "1"}
    assert second["messages"][-1]["tool_calls"] == [{"id": "1"}]
    assert (second["tools"], sorted(second)) == ([{"name": "f"}], ["messages", "tools"])


def test_export_openai_comes_back_as_the_same_question_and_answer(tmp_path: Path) -> None:
    export_file(RECORDS, tmp_path / "x.jsonl", "openai")
    with TrafficStore.open(Project(tmp_path / "p")) as store:
        import_file(tmp_path / "x.jsonl", store)
        back = list(store.records())
    assert [(r.request["messages"], dict(r.message)) for r in back] == [
        (r.request["messages"], dict(r.message)) for r in RECORDS[:2]
    ]


def test_export_line_keeps_an_error_in_our_format_alone() -> None:
    failed = replace(make(), response=None, status="error")
    assert json.loads(export_line(failed, "own") or b"")["response"] is None
    assert export_line(failed, "openai") is None


def test_export_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("old")

    def failing() -> Any:
        yield RECORDS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        export_file(failing(), tmp_path / "x.jsonl", "own")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.jsonl", "old")]


def test_export_file_says_that_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x.jsonl: cannot be written: No such file or directory"):
        export_file(RECORDS, tmp_path / "missing" / "x.jsonl", "own")


@pytest.mark.parametrize("name", ["pipe", "pipe.gz"])
def test_export_file_writes_to_a_pipe_as_it_is(tmp_path: Path, name: str) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(pipe.read_bytes)
        assert export_file(RECORDS, pipe, "own") == 3
        got = told.result()
    assert pipe.is_fifo()
    export_file(RECORDS, tmp_path / f"file-{name}", "own")
    (tmp_path / f"got-{name}").write_bytes(got)
    assert lines(tmp_path / f"got-{name}") == lines(tmp_path / f"file-{name}")


def test_export_file_keeps_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "x.jsonl"
    link.symlink_to(tmp_path / "real" / "x.jsonl")
    for _ in range(2):
        assert export_file(RECORDS, link, "own") == 3
        assert link.is_symlink() and len(lines(tmp_path / "real" / "x.jsonl")) == 3
    assert len(list(tmp_path.rglob("*"))) == 3
