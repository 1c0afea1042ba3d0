"""`own traffic`: the store from a shell."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, make_record
from ownweights.traffic.feedback import keep_feedback, parse_feedback
from tests.traffic.odd import odd_records
from tests.traffic.samples import answer, ask, line, make, write_lines
from tests.traffic.test_query import some_records


class Shell:
    """`own --project DIR traffic ...`, and what it printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *words: object, code: int = 0) -> tuple[str, str]:
        returned = main(["--project", str(self.folder), "traffic", *map(str, words)])
        out, errors = self._capsys.readouterr()
        assert returned == code, errors
        return out, errors

    def json(self, *words: object, code: int = 0) -> list[Any]:
        out, _ = self(*words, "--json", code=code)
        return [json.loads(text) for text in out.split("\n")[:-1]]


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "project", capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    cut = line(2, response=answer("cut", finish_reason="length"))
    return write_lines(tmp_path / "x.jsonl.gz", [line(0), line(1), b"nope", cut, line(1)])


def test_traffic_import_reports_on_each_file(own: Shell, file: Path) -> None:
    out, errors = own("import", file, file)
    assert out == f"{file}: 5 read, 3 added, 1 duplicates\n{file}: 5 read, 0 added, 4 duplicates\n"
    assert "  skipped: 1 broken_json\n  kept, but note: 1 partial\n  line 3: not JSON" in errors


def test_traffic_import_prints_json(own: Shell, file: Path) -> None:
    (report,) = own.json("import", file)
    assert report.pop("first_errors")[0].startswith("line 3: not JSON")
    assert report == {
        "file": str(file), "read": 5, "added": 3, "duplicates": 1,
        "skipped": {"broken_json": 1}, "noted": {"partial": 1},
    }  # fmt: skip


def test_traffic_import_takes_a_workload(own: Shell, file: Path) -> None:
    own("import", file, "--workload", "mine")
    assert {row["workload"] for row in own.json("list")} == {"mine"}
    _, errors = own("import", file, "--workload", "not a name", code=2)
    assert "'not a name' cannot name a workload; use up to 64 letters" in errors


def test_traffic_import_refuses_what_is_no_chat(own: Shell, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "x.jsonl", [{"question": "?"}])
    out, errors = own("import", file, code=1)
    assert out == ""
    assert f"error: {file}: this is not chat traffic: line 1: has neither" in errors


def test_traffic_list_shows_the_newest_first(own: Shell, file: Path) -> None:
    own("import", file)
    rows = own.json("list", "--limit", 2)
    assert [(row["asks"], row["status"]) for row in rows] == [
        ("question 2", "partial"), ("question 1", "ok")
    ]  # fmt: skip
    assert len(own.json("list", "--status", "ok")) == 2
    out, _ = own("list")
    assert out.split("\n")[0].split() == [
        "id", "at", "workload", "session", "role", "status", "model", "asks"
    ]  # fmt: skip


def test_traffic_shows_whatever_was_recorded(own: Shell) -> None:
    records = odd_records()
    with TrafficStore.open(Project(own.folder)) as store:
        store.add(records)
    assert len(own.json("list", "--limit", 5_000)) == len(records)
    for record in records[::23]:
        out, _ = own("show", record.id)
        assert record.id in out


def test_traffic_list_of_nothing_says_so(own: Shell, file: Path) -> None:
    own("import", file)
    assert own("list", "--workload", "none") == ("", "no record matches\n")


@pytest.mark.parametrize("verb", ["list", "stats", "verify", "export", "show x"])
def test_traffic_without_a_store_says_what_to_do(own: Shell, verb: str) -> None:
    _, errors = own(*verb.split(), code=1)
    assert errors.startswith("error: there is no traffic in ")
    assert "hint: own traffic import FILE" in errors
    assert not own.folder.exists()


def test_traffic_show_prints_the_conversation(own: Shell, file: Path) -> None:
    own("import", file)
    out, _ = own("show", "id-0")
    assert out.endswith("\n[user]\nquestion 0\n\n[assistant]\nanswer 0\n")
    (record,) = own.json("show", own.json("list")[0]["id"])
    assert (record["source_id"], record["status"]) == ("id-2", "partial")
    assert record["request"]["messages"][1]["content"] == "question 2"


def test_traffic_show_prints_tool_calls(own: Shell, tmp_path: Path) -> None:
    called = line(0, response=answer(None, tool_calls=[{"id": "c1"}]))
    own("import", write_lines(tmp_path / "x.jsonl", [called]))
    assert own("show", "id-0")[0].endswith('\n[assistant]\n[{"id": "c1"}]\n')


TERMINAL = "a\x1b]0;owned\x07b\x1b[2Jc\rd\u202ee\u2028f\x00g\x9bh"


def test_traffic_show_commands_no_terminal(own: Shell) -> None:
    said = make(f"{TERMINAL}\nline\ttab \u3000日本 👩\u200d🚀", TERMINAL)
    with TrafficStore.open(Project(own.folder)) as store:
        store.add([said])
        keep_feedback(store.database, parse_feedback({"request_id": said.id, "comment": TERMINAL}))
    out, _ = own("show", said.id)
    told = r"a\x1b]0;owned\x07b\x1b[2Jc\rd\u202ee\u2028f\x00g\x9bh"
    assert out.count(told) == 3
    assert f"{told}\nline\ttab \u3000日本 👩\u200d🚀\n" in out
    assert not [one for one in out if one not in "\n\t" and unicodedata.category(one) == "Cc"]


@pytest.mark.parametrize(
    ("protocol", "request_body", "asks"),
    [
        ("responses", {"model": "m", "input": "what is it?"}, "what is it?"),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]},
                                 {"type": "function_call_output", "output": "y"}]}, "x"),
        ("embeddings", {"model": "m", "input": ["one", "two"]}, "one two"),
        ("embeddings", {"model": "m", "input": [[1, 2], [3]]}, ""),
        ("completions", {"model": "m", "prompt": "once upon"}, "once upon"),
        ("completions", {"model": "m", "prompt": [None, 5, "x"]}, "x"),
        ("messages", {"messages": [{"role": "user", "content": "hi"}]}, "hi"),
        ("completions", {"model": "m"}, ""), ("responses", {"input": {"a": 1}}, ""),
    ],
)  # fmt: skip
def test_traffic_shows_other_protocols_as_they_passed(
    own: Shell, protocol: Any, request_body: dict[str, Any], asks: str
) -> None:
    body = {"id": "r-1", "output": "thing"}
    record = make_record(request_body, body, role="teacher", workload="w")
    record = replace(record, protocol=protocol)
    with TrafficStore.open(Project(own.folder)) as store:
        store.add([record])
    assert [row["asks"] for row in own.json("list")] == [asks]
    _, asked, said = own("show", record.id)[0].split("\n\n")
    assert asked == f"[request]\n{json.dumps(request_body)}"
    assert said == f"[response]\n{json.dumps(body)}\n"


def test_traffic_show_tells_an_error_as_it_came(own: Shell) -> None:
    record = make_record(ask("hello"), {"error": {"message": "no"}}, role="teacher", workload="w",
                         status="error")  # fmt: skip
    with TrafficStore.open(Project(own.folder)) as store:
        store.add([record])
    out, _ = own("show", record.id)
    assert out.endswith('[user]\nhello\n\n[response]\n{"error": {"message": "no"}}\n')


def test_traffic_show_refuses_an_id_that_names_none_or_many(own: Shell, file: Path) -> None:
    own("import", file)
    assert "error: there is no record 'zz'" in own("show", "zz", code=2)[1]
    assert "error: '0' is the beginning of several ids" in own("show", "0", code=2)[1]


def test_traffic_stats_counts_each_workload(own: Shell, file: Path) -> None:
    own("import", file)
    (row,) = own.json("stats")
    assert (row["workload"], row["records"], row["ok"], row["partial"]) == ("w", 3, 2, 1)
    assert row["models"] == ["big-1"]
    assert (row["cost_usd"], row["unpriced"]) == (None, 3)
    assert own("stats")[0].split("\n")[0].split()[:2] == ["workload", "records"]


def test_traffic_verify_fails_on_damage_until_repaired(own: Shell, file: Path) -> None:
    own("import", file)
    out, errors = own("verify")
    assert out == ""
    assert errors.startswith("3 records in 1 segments (")
    assert errors.endswith(" bytes): 0 damaged\n")
    (segment,) = Project(own.folder).bodies_dir.iterdir()
    segment.write_bytes(segment.read_bytes()[:-1])
    out, errors = own("verify", code=1)
    assert [row[:6] for row in out.splitlines()] == ["record"] * 3 + ["shared"]
    assert "body segment " in out
    assert len(own.json("verify", code=1)[0]["damaged"]) == 3
    assert own("verify", "--repair")[1].endswith("3 damaged, 3 taken out\n")
    own("verify")


def test_traffic_export_writes_lines_to_stdout(
    tmp_path: Path, file: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    main(["--project", str(tmp_path), "traffic", "import", str(file)])
    capfdbinary.readouterr()
    words = ["traffic", "export", "--status", "ok", "--format", "openai"]
    assert main(["--project", str(tmp_path), *words]) == 0
    lines = [json.loads(text) for text in capfdbinary.readouterr().out.split(b"\n")[:-1]]
    assert [line["messages"][-1]["content"] for line in lines] == ["answer 0", "answer 1"]


def test_traffic_export_to_a_file_can_be_imported(own: Shell, file: Path, tmp_path: Path) -> None:
    own("import", file)
    target = tmp_path / "out.jsonl.gz"
    assert own("export", "--output", target) == ("", f"{target}: 3 records\n")
    assert own.json("export", "--output", target) == [{"file": str(target), "records": 3}]
    assert own.json("import", target)[0]["duplicates"] == 3


def test_traffic_list_shortens_long_questions(own: Shell) -> None:
    with TrafficStore.open(Project(own.folder)) as store:
        store.add([make("many\nwords " * 20)])
    (row,) = own.json("list")
    assert row["asks"] == ("many words " * 20)[:59] + "…"


@pytest.mark.parametrize(
    ("flag", "settings", "masked"),
    [
        ((), "", "key"),
        ((), '[store]\nredact = ["email"]\n', "key email"),
        ((), '[workload.w]\nredact = ["none"]\n', ""),
        (("--redact",), '[workload.w]\nredact = ["none"]\n', "key email ip"),
        (("--no-redact",), '[store]\nredact = ["all"]\n', ""),
    ],
)
def test_traffic_import_masks_as_settings_and_flags_say(
    own: Shell, tmp_path: Path, flag: tuple[str, ...], settings: str, masked: str
) -> None:
    values = {"key": "sk-proj-a1b2c3d4e5f6g7h8i9j0", "email": "a@b.org", "ip": "203.0.113.7"}
    own.folder.mkdir(parents=True)
    (own.folder / "own.toml").write_text(settings)
    asked = line(0, request=ask(" ".join(values.values())))
    own("import", write_lines(tmp_path / "x.jsonl", [asked]), "--workload", "w", *flag)
    with TrafficStore.open(Project(own.folder)) as store:
        (record,) = store.records()
    words = record.request["messages"][1]["content"].split()
    kept = {kind for kind, word in zip(values, words, strict=True) if word == values[kind]}
    assert set(values) - kept == set(masked.split())


def test_traffic_import_refuses_names_without_a_recognizer(own: Shell, file: Path) -> None:
    own.folder.mkdir(parents=True)
    (own.folder / "own.toml").write_text('[store]\nredact = ["name"]\n')
    _, errors = own("import", file, code=2)
    assert 'hint: [store] needs recognizer = "package.module:function"' in errors


def filled(own: Shell) -> None:
    with TrafficStore.open(Project(own.folder)) as store:
        store.add(some_records(60))


def test_traffic_list_goes_on_before_an_id(own: Shell) -> None:
    filled(own)
    whole = [row["id"] for row in own.json("list", "--limit", 60)]
    found: list[str] = []
    while rows := own.json("list", "--limit", 17, *(["--before", found[-1]] if found else [])):
        found += [row["id"] for row in rows]
    assert found == whole
    assert "there is no record 'zz'" in own("list", "--before", "zz", code=2)[1]


def test_traffic_list_takes_every_filter(own: Shell) -> None:
    filled(own)
    words = ["--role", "student", "--model", "m1", "--key", "k1", "--user", "eve"]
    rows = own.json("list", "--limit", 60, *words)
    assert rows
    assert all((r["role"], r["model"], r["key_id"], r["end_user"]) == ("student", "m1", "k1", "eve")
               for r in rows)  # fmt: skip
    since = own.json("list", "--limit", 60, "--since", "2024-10-05", "--until", "2024-10-06T12:00")
    assert since
    assert all("2024-10-05" <= r["at"] < "2024-10-06T12:00" for r in since)
    assert "is no day" in own("list", "--since", "tomorrow", code=2)[1]


@pytest.mark.parametrize("by", ["workload", "status", "role", "model", "protocol", "upstream"])
def test_traffic_facets_add_up(own: Shell, by: str) -> None:
    filled(own)
    rows = own.json("facets", by)
    assert sum(row["records"] for row in rows) == 60
    assert [row["records"] for row in rows] == sorted((r["records"] for r in rows), reverse=True)


def test_traffic_facets_by_day_are_days_in_order(own: Shell) -> None:
    filled(own)
    days = [row["day"] for row in own.json("facets", "day", "--workload", "a")]
    assert days == sorted(days)
    assert days[0] == "2024-10-04"


def test_traffic_stats_by_model_and_since(own: Shell) -> None:
    filled(own)
    rows = own.json("stats", "--by", "model")
    assert {row["model"] for row in rows} == {"m1", "m2"}
    assert all(row["cost_usd"] > 0 and row["p50_ms"] <= row["p95_ms"] for row in rows)
    part = own.json("stats", "--since", "2024-10-05")
    assert sum(row["records"] for row in part) < 60
    assert "prompts" not in part[0]
    assert own("stats", "--by", "model")[0].split("\n")[0].split()[:2] == ["model", "records"]
