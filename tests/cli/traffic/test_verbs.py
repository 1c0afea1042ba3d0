"""Every verb of `own traffic`: bad values, no store, an empty one, strange text, prefixes."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from tests.cli.test_traffic import Shell
from tests.traffic.samples import ask, line, make, stored, write_lines
from tests.traffic.test_query import some_records

READING = [
    ["list"], ["facets", "model"], ["show", "x"], ["stats"], ["search", "x"], ["verify"],
    ["export"], ["prune"], ["delete", "--user", "x", "--yes"],
]  # fmt: skip
FILTERED = [["list"], ["facets", "model"], ["stats"], ["search", "x"], ["export"]]
BAD = [
    (["--workload", "a/b"], "'a/b' cannot name a workload"),
    (["--workload", ""], "'' cannot name a workload"),
    (["--status", "fine"], "'fine' is not one of"),
    (["--role", "user"], "'user' is not one of"),
    (["--protocol", "smtp"], "'smtp' is not one of"),
    (["--since", ""], "'' is no day"),
    (["--until", "2024-02-30"], "'2024-02-30' is no day"),
    (["--since", "1700000000"], "'1700000000' is no day"),
    (["--colour", "red"], "No such option"),
    (["--model"], "requires an argument"),
    (["one", "two", "three"], "unexpected extra argument"),
]
STRANGE = [
    "ƒ ünïcödé ≠ ascii", "日本語の質問", "שלום עולם", "👩‍👩‍👧 family", "tab\tand\nline",
    "bell\x07 escape\x1b[2J", 'quote " and \\ backslash', "\u202eright to left", "e\u0301 apart",
]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "project", capsys)


@pytest.fixture
def empty(own: Shell) -> Shell:
    with TrafficStore.open(Project(own.folder)):
        pass
    return own


@pytest.fixture
def filled(own: Shell) -> Shell:
    with TrafficStore.open(Project(own.folder)) as store:
        store.add(some_records(90))
    return own


@pytest.mark.parametrize("words", READING, ids=" ".join)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_verbs_without_a_store_make_none(own: Shell, words: list[str], form: list[str]) -> None:
    out, errors = own(*words, *form, code=1)
    assert out == ""
    assert "error: there is no traffic in " in errors and "hint: own traffic import" in errors
    assert not own.folder.exists()


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_verbs_of_an_empty_store_print_no_rows(empty: Shell, words: list[str]) -> None:
    code = 2 if words[0] == "show" else 0
    out, errors = empty(*words, code=code)
    assert out == "" and "Traceback" not in errors
    lines = empty.json(*words, code=code)
    if words[0] in ("verify", "prune", "delete"):
        assert lines[0]["records"] == 0
    else:
        assert lines == []


@pytest.mark.parametrize("verb", FILTERED, ids=" ".join)
@pytest.mark.parametrize(("words", "what"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_verbs_refuse_bad_filters(
    empty: Shell, verb: list[str], words: list[str], what: str
) -> None:
    out, errors = empty(*verb, *words, code=2)
    assert out == ""
    assert what in errors and "hint: " in errors


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["list", "--limit", "0"], "0 is not in the range 1<=x<=10000"),
        (["list", "--limit", "10001"], "is not in the range"),
        (["list", "--limit", "many"], "'many' is not a valid integer"),
        (["list", "--before", "nobody"], "there is no record 'nobody'"),
        (["search", "x", "--limit", "-1"], "is not in the range"),
        (["search"], "Missing argument 'TEXT'"),
        (["show"], "Missing argument 'ID'"),
        (["show", "a" * 300], "there is no record"),
        (["show", "%"], "there is no record '%'"),
        (["show", "' OR 1=1 --"], "there is no record"),
        (["facets"], "Missing argument"),
        (["facets", "colour"], "'colour' is not one of"),
        (["stats", "--by", "session"], "'session' is not one of"),
        (["export", "--format", "csv"], "'csv' is not one of"),
        (["import"], "Missing argument 'FILES...'"),
        (["prune", "--before", "yesterday"], "'yesterday' is no day"),
        (["prune", "--bodies-before", ""], "'' is no day"),
        (["delete", "--id", "nobody", "--yes"], "there is no record 'nobody'"),
        (["delete", "--id", "", "--yes"], "there is no record ''"),
        (["sweep"], "No such command 'sweep'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_verbs_refuse_bad_values(filled: Shell, words: list[str], what: str) -> None:
    before = filled.json("list", "--limit", 100)
    out, errors = filled(*words, code=2)
    assert out == ""
    assert what in errors and "hint: " in errors
    assert filled.json("list", "--limit", 100) == before


def test_import_of_a_file_that_is_not_there_says_so(own: Shell, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.jsonl"
    out, errors = own("import", missing, code=1)
    assert out == "" and errors.startswith("error: ") and str(missing) in errors
    out, errors = own("import", tmp_path, code=1)
    assert out == "" and errors.startswith("error: ") and "Traceback" not in errors


FACETS = ("workload", "status", "role", "model", "upstream", "protocol", "key_id", "day")


@pytest.mark.parametrize("by", FACETS)
def test_tables_and_json_hold_the_same_rows(filled: Shell, by: str) -> None:
    known = [r for r in stored(Project(filled.folder)) if by == "day" or getattr(r, by) is not None]
    for words in (["facets", by], ["stats", "--by", by]):
        head, *rows = filled(*words)[0].splitlines()
        listed = filled.json(*words)
        assert len(rows) == len(listed)
        assert head.split()[:2] == [by, "records"]
        assert sum(row["records"] for row in listed) == len(known)  # some have no key
        for row, one in zip(rows, listed, strict=True):
            assert str(one["records"]) in row.split()


ONLY: list[dict[str, Any]] = [
    {}, {"workload": "a"}, {"status": "partial"}, {"role": "student"}, {"model": "m2"},
    {"upstream": "u"}, {"key_id": "k1"}, {"session": "s2"}, {"end_user": "eve"},
    {"workload": "b", "status": "ok", "model": "m1"}, {"session": "s1", "end_user": "eve"},
    {"workload": "nobody's"[:6]}, {"upstream": "u", "key_id": "k1", "role": "teacher"},
]  # fmt: skip
WORDS = {"key_id": "--key", "end_user": "--user"}


@pytest.mark.parametrize("only", ONLY, ids=str)
def test_filters_choose_alike_in_every_verb(
    filled: Shell, tmp_path: Path, only: dict[str, str]
) -> None:
    given = [word for name, value in only.items()
             for word in (WORDS.get(name, f"--{name}"), value)]  # fmt: skip
    wanted = {r.id for r in stored(Project(filled.folder))
              if all(getattr(r, name) == value for name, value in only.items())}  # fmt: skip
    assert {row["id"] for row in filled.json("list", "--limit", 90, *given)} == wanted
    found = filled.json("search", "question", "--limit", 90, *given)
    assert {row["id"] for row in found} == wanted
    assert sum(row["records"] for row in filled.json("stats", *given)) == len(wanted)
    assert sum(row["records"] for row in filled.json("facets", "role", *given)) == len(wanted)
    target = tmp_path / "x.jsonl"
    assert filled.json("export", "--output", target, *given)[0]["records"] == len(wanted)


def test_search_with_filters_says_how_much_it_read(filled: Shell) -> None:
    few = filled.json("list", "--limit", 90, "--session", "s1")
    _, errors = filled("search", "nobody said this", "--session", "s1")
    assert f"read {len(few)} of {len(few)} records" in errors
    (hit,) = filled.json("search", "answer 7", "--limit", 1)
    assert hit["where"] == "response.choices[0].message.content"


@pytest.mark.parametrize("text", STRANGE, ids=ascii)
def test_strange_text_is_found_shown_and_kept_on_its_line(
    own: Shell, tmp_path: Path, text: str
) -> None:
    asked = line(0, request=ask(text), end_user="ünï", metadata={"workload": "w", "session": "日"})
    own("import", write_lines(tmp_path / "x.jsonl", [asked, line(1)]))
    rows = own.json("list", "--user", "ünï", "--session", "日")
    assert [row["asks"] for row in rows] == [" ".join(text.split())]
    assert own.json("search", text)[0]["id"] == rows[0]["id"]
    (record,) = own.json("show", "id-0")
    assert record["request"]["messages"][1]["content"] == text
    table = own("list")[0]
    assert len(table.splitlines()) == 3
    assert not [c for c in table if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
    target = tmp_path / "out.jsonl"
    own("export", "--output", target, "--user", "ünï")
    assert json.loads(target.read_text("utf-8"))["request"]["messages"][1]["content"] == text
    assert own.json("delete", "--user", "ünï", "--yes")[0]["records"] == 1
    assert own.json("search", text) == []


def test_beginnings_of_ids_name_one_or_tell_of_several(filled: Shell) -> None:
    ids = [row["id"] for row in filled.json("list", "--limit", 90)]
    for one in ids[::9]:
        for length in (1, 2, 3, 4, 8, len(one)):
            part = one[:length]
            named = [other for other in ids if other.startswith(part)]
            if len(named) == 1:
                assert filled.json("show", part)[0]["id"] == one
                continue
            _, errors = filled("show", part, code=2)
            assert f"{part!r} is the beginning of several ids" in errors
            hinted = errors.split("hint: ")[1].strip().split(", ")
            assert hinted and set(hinted) <= set(named)


def test_ids_of_two_workloads_from_a_file_are_told_apart(own: Shell, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "x.jsonl", [line(0)])
    own("import", file)
    own("import", file, "--workload", "other")
    ids = {row["workload"]: row["id"] for row in own.json("list")}
    _, errors = own("show", "id-0", code=2)
    assert all(one in errors for one in ids.values())
    for workload, one in ids.items():
        assert own.json("show", one)[0]["workload"] == workload
    own("delete", "--id", ids["other"], "--yes")
    assert own.json("show", "id-0")[0]["workload"] == "w"


FORMS = ["own", "openai", "langfuse", "litellm"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_export_and_import_come_round(
    own: Shell, tmp_path: Path, form: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [make(text, f"reply {text}", at=1.7e9 + n, source_id=f"r{n}", session="s")
               for n, text in enumerate(STRANGE)]  # fmt: skip
    with TrafficStore.open(Project(own.folder)) as store:
        store.add(records)
    first, second = tmp_path / f"1.{ending}", tmp_path / f"2.{ending}"
    own("export", "--format", form, "--output", first)
    other = Shell(tmp_path / "other", capsys)
    (report,) = other.json("import", first, "--no-redact", "--workload", "w")
    assert (report["added"], report["skipped"]) == (len(STRANGE), {})
    other("export", "--format", form, "--output", second)
    said = [(r.request["messages"], r.answer_text) for r in stored(Project(other.folder))]
    wanted = [(r.request["messages"], r.answer_text) for r in records]
    key = str
    assert sorted(said, key=key) == sorted(wanted, key=key)
    assert other.json("import", first, "--no-redact", "--workload", "w")[0]["added"] == 0
    if form == "own":
        assert {r.id for r in stored(Project(other.folder))}.isdisjoint({"r0"})
        assert [(r.at, r.session) for r in stored(Project(other.folder))] == [
            (r.at, r.session) for r in records
        ]


@pytest.mark.parametrize(
    "words",
    [["--before", "2024-10-06"], ["--bodies-before", "2024-10-06"], [],
     ["--before", "2024-10-05", "--bodies-before", "2024-10-07T06:00"],
     ["--before", "2024-10-07", "--bodies-before", "2024-10-05"],
     ["--before", "1970-01-01"], ["--before", "2100-01-01"], ["--bodies-before", "2100-01-01"]],
    ids=lambda words: " ".join(words) or "nothing",
)  # fmt: skip
def test_prune_does_what_its_dry_run_says(filled: Shell, words: list[str]) -> None:
    before = filled.json("list", "--limit", 90)
    (would,) = filled.json("prune", "--dry-run", *words)
    assert filled.json("list", "--limit", 90) == before
    (did,) = filled.json("prune", *words)
    assert (did["records"], did["bodies"]) == (would["records"], would["bodies"])
    assert did["is_clean"] and did["unreadable"] == []
    after = filled.json("list", "--limit", 90)
    assert len(after) == 90 - would["records"]
    assert sum(row["pruned"] is not None for row in after) == would["bodies"]
    until = dict(zip(words[::2], words[1::2], strict=True))
    gone = sum(row["at"] < until.get("--before", "") for row in before)
    assert would["records"] == gone
    assert filled.json("prune", *words)[0] == filled.json("prune", "--dry-run", *words)[0]
    assert filled.json("verify")[0]["damaged"] == []


def test_pruned_records_are_not_exported_but_deleted(filled: Shell, tmp_path: Path) -> None:
    filled("prune", "--bodies-before", "2024-10-06")
    left = [row for row in filled.json("list", "--limit", 90) if row["pruned"] is None]
    (facts,) = filled.json("export", "--output", tmp_path / "x.jsonl")
    assert facts["records"] == len(left)
    eve = [row for row in filled.json("list", "--limit", 90) if row["end_user"] == "eve"]
    assert any(row["pruned"] for row in eve)
    assert filled.json("delete", "--user", "eve", "--yes")[0]["records"] == len(eve)
    assert filled.json("list", "--user", "eve") == []
