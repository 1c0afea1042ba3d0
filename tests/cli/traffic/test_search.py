"""`own traffic search` and the forms of `own traffic export`, from a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from tests.cli.test_traffic import Shell
from tests.traffic.samples import answer, line, make, write_lines


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "project", capsys)


@pytest.fixture
def filled(own: Shell) -> Shell:
    with TrafficStore.open(Project(own.folder)) as store:
        store.add(
            [
                make("where is the Needle", "in the hay", session="a"),
                make("what is hay", "dry grass", session="b"),
                make("and again", "the needle is here", session="a"),
            ]
        )
    return own


def test_traffic_search_says_where_and_how_much_was_read(filled: Shell) -> None:
    out, errors = filled("search", "needle")
    assert "response.choices[0].message.content" in out
    assert "the needle is here" in out
    assert len(out.splitlines()) == 2
    assert errors.startswith("searching: 3/3\nread 3 of 3 records, 0.0 MiB, in ") or (
        "read 3 of 3 records, 0.0 MiB, in " in errors
    )


def test_traffic_search_of_any_case(filled: Shell) -> None:
    rows = filled.json("search", "NEEDLE", "--ignore-case")
    assert [row["where"] for row in rows] == [
        "response.choices[0].message.content", "request.messages[1].content"
    ]  # fmt: skip
    assert filled.json("search", "NEEDLE") == []


def test_traffic_search_takes_filters_and_a_limit(filled: Shell) -> None:
    assert len(filled.json("search", "hay")) == 2
    assert len(filled.json("search", "hay", "--limit", 1)) == 1
    assert len(filled.json("search", "hay", "--session", "b")) == 1


def test_traffic_search_of_nothing_found_says_so(filled: Shell) -> None:
    out, errors = filled("search", "elsewhere")
    assert out == ""
    assert "no record holds it" in errors
    assert "nothing to search for" in filled("search", "", code=2)[1]


def test_traffic_search_says_what_it_could_not_read(filled: Shell) -> None:
    (path,) = Project(filled.folder).bodies_dir.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert "warning: 3 could not be read" in filled("search", "needle")[1]


@pytest.mark.parametrize("form", ["own", "openai", "langfuse", "litellm"])
def test_traffic_export_of_each_form_can_be_imported(
    filled: Shell, tmp_path: Path, form: str
) -> None:
    target = tmp_path / f"{form}.jsonl"
    assert filled.json("export", "--format", form, "--output", target)[0]["records"] == 3
    other = Shell(tmp_path / "other", filled._capsys)
    assert other.json("import", target)[0]["added"] == 3
    answers = {"in the hay", "dry grass", "the needle is here"}
    assert all(len(other.json("search", one)) == 1 for one in answers)


def test_traffic_export_takes_every_filter(filled: Shell, tmp_path: Path) -> None:
    target = tmp_path / "x.jsonl"
    assert filled.json("export", "--session", "a", "--output", target)[0]["records"] == 2
    assert filled.json("export", "--since", "2100-01-01", "--output", target)[0]["records"] == 0


def test_traffic_import_names_the_reasons_of_other_forms(own: Shell, tmp_path: Path) -> None:
    rows = [
        line(1),
        {"id": "s", "trace_id": "t", "type": "SPAN", "input": "x", "output": "y"},
        {"request_id": "r", "startTime": "2024-01-01T00:00:00Z", "spend": 0.1},
        {**line(2), "cost_usd": "much"},
        {"request_id": "q", "startTime": "2024-01-01T00:00:00Z", "spend": 0.1,
         "messages": [{"role": "user", "content": "x litellm_truncated y"}],
         "response": answer("z")},
    ]  # fmt: skip
    (report,) = own.json("import", write_lines(tmp_path / "x.jsonl", rows))
    assert report["added"] == 1
    assert report["skipped"] == {
        "not_generation": 1, "no_content": 1, "bad_fact": 1, "truncated": 1
    }  # fmt: skip
