"""Files into the store: every line is stored, or counted with the reason why not."""

from __future__ import annotations

import gzip
import inspect
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from ownweights.core import jsonl
from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, chat, import_file, importer
from ownweights.traffic import draft as draft_module
from ownweights.traffic.importer import ImportReport
from tests.traffic.samples import (
    answer,
    ask,
    line,
    make,
    write_lines,
)

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TUNING = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Hi!"},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "parallel_tool_calls": False,
}


def bring(store: TrafficStore, path: Path, lines: list[Any], **options: Any) -> ImportReport:
    return import_file(write_lines(path / "traffic.jsonl", lines), store, **options)


def skipped(tmp_path: Path, store: TrafficStore, odd: Any) -> tuple[dict[str, int], str]:
    """What becomes of an odd line between two good ones."""
    report = bring(store, tmp_path, [line(1), odd, line(2)])
    assert (report.read, report.added) == (3, 2)
    return report.skipped, report.first_errors[0]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_import_reads_our_chat_format(store: TrafficStore, tmp_path: Path, suffix: str) -> None:
    odd_text = "a\u2028b\u2029c é"
    metadata = {"workload": "t", "session": "s1", "gold": odd_text}
    lines = [line(1, metadata=metadata, at=1_700_000_000), line(2, request=ask(odd_text))]
    path = write_lines(tmp_path / f"x{suffix}", [json.dumps(n, ensure_ascii=False).encode()
                                                  for n in lines])  # fmt: skip
    report = import_file(path, store)
    assert report == ImportReport(read=2, added=2)
    first, second = store.records()
    assert (first.workload, first.session, first.metadata, first.at) == (
        "t", "s1", metadata, 1_700_000_000.0
    )  # fmt: skip
    assert (first.source_id, first.role, first.status, first.model) == (
        "id-1", "imported", "ok", "big-1"
    )  # fmt: skip
    assert (second.request, second.response) == (ask(odd_text), answer("answer 2"))


def test_import_reads_fine_tuning_format(store: TrafficStore, tmp_path: Path) -> None:
    report = bring(store, tmp_path, [TUNING], workload="tuned")
    assert (report.added, report.skipped) == (1, {})
    (record,) = store.records()
    assert record.request == {
        "model": "",
        "messages": TUNING["messages"][:-1],
        "tools": TUNING["tools"],
        "parallel_tool_calls": False,
    }
    assert (record.answer_text, record.finish_reason, record.workload) == ("Hi!", "stop", "tuned")


def test_import_takes_a_tool_call_for_an_answer(store: TrafficStore, tmp_path: Path) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    tuning = {"messages": [{"role": "user", "content": "?"}, called]}
    loop = ask()
    loop["messages"] += [called, {"role": "tool", "tool_call_id": "c1", "content": "42"}]
    with_null = line(1, request=loop, response=answer(None, tool_calls=[CALL]))
    report = bring(store, tmp_path, [with_null, tuning])
    assert (report.added, report.skipped) == (2, {})
    assert [(r.answer_text, r.message["tool_calls"]) for r in store.records()] == [
        (None, [CALL]), (None, [CALL])
    ]  # fmt: skip
    assert list(store.records())[1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("odd", "reason", "says"),
    [
        (b'{"id": "id-3", "request', "broken_json", "not JSON: "),
        (b'{"id": "\xe9"}', "undecodable", "not UTF-8 text: "),
        (b"[1]", "not_object", "expected a JSON object, got list"),
        ({"question": "?", "gold": "!"}, "not_chat",
         "has neither 'request' nor 'messages' among its keys 'gold', 'question'"),
        ({"request": "hello"}, "not_chat", "'request' is a str, not an object"),
        (line(3, request={"messages": []}), "bad_messages", "'messages' must be a non-empty list"),
        (line(3, request={"messages": ["x"]}), "bad_messages", "messages[0] is not an object"),
        (line(3, request={"messages": [{"role": "user", "content": 5}]}), "bad_messages",
         "messages[0] has content that is neither text nor parts"),
        (line(3, request={"messages": [{"role": "usr", "content": "x"}]}), "wrong_roles",
         "messages[0] has role 'usr', not one of system, developer, user, assistant, tool"),
        (line(3, request={"messages": [{"content": "x"}]}), "wrong_roles", "has role None"),
        (line(3, request={"messages": [{"role": ["user"], "content": "x"}]}), "wrong_roles",
         "has role ['user']"),
        (line(3, request={"messages": [{"role": "system", "content": "x"}]}), "wrong_roles",
         "nobody asks: there is no user message"),
        ({"messages": TUNING["messages"][:-1]}, "wrong_roles",
         "the last of 'messages' must be the assistant's answer"),
        ({"messages": TUNING["messages"][-1:]}, "wrong_roles", "nobody asks"),
        ({"messages": [*TUNING["messages"][:-1], {**TUNING["messages"][-1], "weight": 0}]},
         "wrong_roles", "the last answer has weight 0"),
        (line(3, response={**answer(role="user")}), "wrong_roles", "the answer has role 'user'"),
        (line(3, response=None), "no_answer", "'response' has no choices[0].message"),
        (line(3, response=...), "no_answer", "'response' has no choices[0].message"),
        (line(3, response={"choices": []}), "no_answer", "'response' has no choices[0].message"),
        (line(3, response={"choices": "abc"}), "no_answer", "'response' has no choices[0].message"),
        (line(3, response={"error": {}}), "no_answer", "'response' has no choices[0].message"),
        (line(3, response=answer("")), "empty_answer", "the answer is empty"),
        (line(3, response=answer(" \n")), "empty_answer", "the answer is empty"),
        (line(3, response=answer(None)), "empty_answer", "the answer is empty"),
        (line(3, response=answer([])), "empty_answer", "the answer is empty"),
        (line(3, response=answer([{"type": "text", "text": ""}])), "empty_answer", "is empty"),
        (line(3, metadata={"a": json.loads("[" * 300 + "]" * 300)}), "broken_json",
         "nested deeper than 200 levels"),
        (line(3, response=answer(7)), "bad_messages", "the answer's content is neither text nor"),
        (line(3, metadata={"workload": "../x"}), "bad_workload",
         "workload: '../x' cannot name a workload"),
    ],
)  # fmt: skip
def test_import_skips_and_counts(
    store: TrafficStore, tmp_path: Path, odd: Any, reason: str, says: str
) -> None:
    counts, told = skipped(tmp_path, store, odd)
    assert counts == {reason: 1}
    assert told.startswith("line 2: ")
    assert says in told


def test_import_skips_a_line_over_the_limit(
    store: TrafficStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "MAX_LINE_BYTES", 5000)
    counts, told = skipped(tmp_path, store, line(3, request=ask("x" * 5000)))
    assert (counts, told) == ({"oversize": 1}, "line 2: longer than 5,000 bytes")


def test_import_counts_what_the_store_refuses(
    store: TrafficStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_module, "MAX_BODY_BYTES", 5000)
    counts, told = skipped(tmp_path, store, line(3, request=ask("x" * 5000)))
    assert counts == {"oversize": 1}
    assert told.startswith("record id-3 has 5,")


def test_import_keeps_ten_megabytes(store: TrafficStore, tmp_path: Path) -> None:
    text = "word " * 2_000_000
    report = bring(store, tmp_path, [line(1, request=ask(text)), line(2)])
    assert report == ImportReport(read=2, added=2)
    assert next(store.records()).request == ask(text)


def test_import_keeps_a_truncated_answer_as_partial(store: TrafficStore, tmp_path: Path) -> None:
    cut = line(1, response=answer("and then", finish_reason="length"))
    report = bring(store, tmp_path, [cut, line(2)])
    assert (report.added, report.noted) == (2, {"partial": 1})
    assert [record.status for record in store.records()] == ["partial", "ok"]


@pytest.mark.parametrize(
    ("text", "is_mojibake"),
    [
        ("EspaÃ±ol", True), ("La SituaciÃ\u00b3n", True), ("RÃ©gulateâ\u20ac¦", True),
        ("a\ufffdb", True), ("a\x85b", True), ("GahÅ\x8d", True),
        ("Español", False), ("Ångström Ærø Ãlvaro", False), ("PlayStation官方杂志 …", False),
        ("naïve – “quoted” €5", False),
    ],
)  # fmt: skip
def test_import_keeps_and_notes_mojibake(
    store: TrafficStore, tmp_path: Path, text: str, is_mojibake: bool
) -> None:
    report = bring(store, tmp_path, [line(1, request=ask(text))])
    assert report.noted == ({"mojibake": 1} if is_mojibake else {})
    assert next(store.records()).request == ask(text)


def test_import_counts_duplicate_ids(store: TrafficStore, tmp_path: Path) -> None:
    again = line(1)
    reordered = {key: again[key] for key in reversed(again)}
    report = bring(store, tmp_path, [line(1), again, reordered, line(1, response=answer("no"))])
    assert (report.read, report.added, report.duplicates) == (4, 1, 2)
    assert report.skipped == {"conflict": 1}
    assert report.first_errors == ["id 'id-1' is stored already with another body"]
    assert next(store.records()).answer_text == "answer 1"


def test_import_keeps_equal_lines_without_an_id(store: TrafficStore, tmp_path: Path) -> None:
    report = bring(store, tmp_path, [TUNING, TUNING, line(1, id=...), line(1, id=...)])
    assert (report.added, report.duplicates) == (4, 0)
    longer = [TUNING, TUNING, TUNING, line(1, id=...), line(1, id="")]
    report = bring(store, tmp_path, longer)
    assert (report.added, report.duplicates) == (1, 4)


def test_import_takes_numbers_for_names(store: TrafficStore, tmp_path: Path) -> None:
    bring(store, tmp_path, [line(1, id=17, metadata={"session": 4, "workload": "w"})])
    (record,) = store.records()
    assert (record.source_id, record.session) == ("17", "4")


@pytest.mark.parametrize("metadata", [None, "text", [], {"workload": None, "session": {}}])
def test_import_names_what_nobody_named(store: TrafficStore, tmp_path: Path, metadata: Any) -> None:
    bring(store, tmp_path, [line(1, metadata=metadata)])
    (record,) = store.records()
    assert record.workload == f"auto-{record.prompt_hash[:8]}"
    assert record.session is None


def test_import_prefers_the_workload_asked_for(store: TrafficStore, tmp_path: Path) -> None:
    bring(store, tmp_path, [line(1)], workload="mine")
    assert [record.workload for record in store.records()] == ["mine"]
    assert bring(store, tmp_path, [line(1)]).added == 1  # another workload, another record
    with pytest.raises(InputError, match="'a b' cannot name a workload"):
        bring(store, tmp_path, [line(1)], workload="a b")


def test_import_gives_the_same_ids_everywhere(tmp_path: Path) -> None:
    lines = [line(1), line(2, at=1_700_000_000), TUNING]
    path = write_lines(tmp_path / "x.jsonl", lines)
    ids: list[list[str]] = []
    for name in ("a", "b"):
        with TrafficStore.open(Project(tmp_path / name)) as store:
            import_file(path, store)
            ids.append([record.id for record in store.records()])
    assert ids[0] == ids[1]
    assert ids[0][1].startswith("018bcfe5-6800-7")  # the milliseconds of `at`
    assert len(set(ids[0])) == 3


@pytest.mark.parametrize(
    ("at", "created", "expected"),
    [
        (1_700_000_000.5, 5, 1_700_000_000.5), (None, 1_600_000_000, 1_600_000_000.0),
        (-1, None, None), (True, None, None), ("x", 2**60, None),
        (2**37.9, None, None), (0, float("1e300"), None),
    ],
)  # fmt: skip
def test_import_believes_a_time_that_can_be(
    store: TrafficStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, at: Any, created: Any,
    expected: float | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(importer.time, "time", lambda: 99.0)
    bring(store, tmp_path, [line(1, at=at, response={**answer(), "created": created})])
    assert next(store.records()).at == (expected or 99.0)


def test_import_again_adds_nothing(store: TrafficStore, tmp_path: Path) -> None:
    lines = [line(n) for n in range(600)]
    assert bring(store, tmp_path, lines[:400]) == ImportReport(read=400, added=400)
    assert bring(store, tmp_path, lines) == ImportReport(read=600, added=200, duplicates=400)
    assert bring(store, tmp_path, lines) == ImportReport(read=600, duplicates=600)
    assert store.count() == 600


def test_import_of_an_export_of_recorded_traffic_adds_nothing(
    store: TrafficStore, tmp_path: Path
) -> None:
    record = make()
    store.add([record])
    exported = line(id=record.id, request=record.request, response=record.response)
    assert bring(store, tmp_path, [exported]).duplicates == 1


def test_import_tells_how_far_it_is(store: TrafficStore, tmp_path: Path) -> None:
    told: list[int] = []
    bring(store, tmp_path, [line(n) for n in range(600)], on_progress=told.append)
    assert told == [256, 512, 600]


def test_import_flushes_large_lines_early(
    store: TrafficStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "_BATCH_BYTES", 1000)
    told: list[int] = []
    lines = [line(n, request=ask("x" * 600)) for n in range(4)]
    bring(store, tmp_path, lines, on_progress=told.append)
    assert told == [2, 4, 4]


def test_import_reasons_are_those_of_the_documents() -> None:
    page = Path(__file__).parents[2] / "docs" / "concepts" / "traffic.md"
    if not page.exists():
        pytest.skip("the documents are not here")
    told = set(re.findall(r"^\| `(\w+)` \|", page.read_text("utf-8"), re.M))
    source = inspect.getsource(importer) + inspect.getsource(chat)
    used = re.findall(r'(?:_Skip|skip|Fault)\("(\w+)"', source)
    assert told == {*used, *get_args(jsonl.Fault)} - {"too_long"}


def test_import_keeps_few_errors_but_counts_all(store: TrafficStore, tmp_path: Path) -> None:
    report = bring(store, tmp_path, [line(1), *[b"nope"] * 50])
    assert report.skipped == {"broken_json": 50}
    assert [told[:6] for told in report.first_errors] == [f"line {n}" for n in range(2, 7)]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "it is empty"),
        ([{"question": "?"}], "line 1: has neither 'request' nor 'messages'"),
        ([{"question": "?"}] * 30, "line 1: has neither 'request' nor 'messages'"),
        ([b"col1,col2", b"a,b"], "line 1: not JSON: "),
        ([b"\xff\xfe{"], "line 1: not UTF-8 text"),
    ],
)
def test_import_refuses_a_file_without_a_chat(
    store: TrafficStore, tmp_path: Path, lines: list[Any], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        bring(store, tmp_path, lines)
    assert f"traffic.jsonl: this is not chat traffic: {says}" in str(caught.value)
    assert caught.value.hint == (
        "a line is {id, request, response, metadata} or {messages: [..., assistant]}"
    )


def test_import_gives_up_early_on_a_file_without_a_chat(
    store: TrafficStore, tmp_path: Path
) -> None:
    lines: list[Any] = [b"?"] * 10_000
    with pytest.raises(InputError, match="none of its first 10,000 lines is a chat; line 1: not"):
        bring(store, tmp_path, [*lines, line(1)])
    assert store.count() == 0
    report = bring(store, tmp_path, [*lines[1:], line(1)])
    assert (report.added, report.skipped) == (1, {"broken_json": 9_999})


@pytest.mark.parametrize("junk", [b"junk", {"question": "?"}, b"[]", b"\xff"])
def test_import_skips_junk_at_the_head_of_a_good_file(
    store: TrafficStore, tmp_path: Path, junk: Any
) -> None:
    report = bring(store, tmp_path, [*[junk] * 40, *(line(n) for n in range(300))])
    assert (report.read, report.added, sum(report.skipped.values())) == (340, 300, 40)


def test_import_does_not_call_unusable_chats_no_traffic(
    store: TrafficStore, tmp_path: Path
) -> None:
    report = bring(store, tmp_path, [line(n, response=None) for n in range(30)])
    assert (report.added, report.skipped) == (0, {"no_answer": 30})


def test_import_keeps_what_precedes_damage_in_gzip(store: TrafficStore, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl.gz", [line(n) for n in range(2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    report = import_file(path, store)
    assert report.skipped == {"broken_gzip": 1}
    assert 1000 < report.added == report.read - 1 < 2000
    assert "the gzip stream is damaged" in report.first_errors[0]
    path.write_bytes(whole)
    assert import_file(path, store).added == 2000 - report.added


def test_import_refuses_gzip_that_holds_nothing_whole(store: TrafficStore, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": 1}', mtime=0)[:12])
    with pytest.raises(InputError, match="not chat traffic: line 1: the gzip stream is damaged"):
        import_file(path, store)


def test_import_refuses_a_missing_file(store: TrafficStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.jsonl: cannot be read: No such file"):
        import_file(tmp_path / "missing.jsonl", store)


@pytest.mark.parametrize(
    ("name", "workload", "records", "mojibake", "prompts", "sessions"),
    [
        ("assistant", "assistant", 13_784, 24, 1, 0),
        ("commands", "commands", 9_960, 0, 1, 0),
        ("describe", "describe", 4_672, 0, 1, 0),
        ("shell", "shell", 12_000, 0, 1, 0),
        ("sql-gpt4", "sql", 1_034, 0, 20, 0),
        ("airline-gpt4o", "airline", 2_166, 0, 1, 160),
    ],
)
def test_import_reads_real_traffic(
    test_data: Path, store: TrafficStore, *, name: str, workload: str, records: int, mojibake: int,
    prompts: int, sessions: int,
) -> None:  # fmt: skip
    path = test_data / "traffic" / f"{name}.jsonl.gz"
    report = import_file(path, store)
    noted = {"mojibake": mojibake} if mojibake else {}
    assert report == ImportReport(read=records, added=records, noted=noted)
    (stats,) = store.workloads()
    assert (stats.workload, stats.records, stats.ok) == (workload, records, records)
    assert (stats.prompts, stats.sessions) == (prompts, sessions)
    with gzip.open(path) as file:
        for record, raw in zip(store.records(), file, strict=True):
            given = json.loads(raw)
            assert (record.request, record.response) == (given["request"], given["response"])
            assert (record.source_id, record.metadata) == (given["id"], given["metadata"])
    assert store.verify().is_sound


def test_import_finds_tool_calls_in_real_traffic(test_data: Path, store: TrafficStore) -> None:
    import_file(test_data / "traffic" / "airline-gpt4o.jsonl.gz", store)
    reasons = Counter(record.finish_reason for record in store.records())
    assert reasons == {"stop": 1127, "tool_calls": 1039}
    assert sum(record.answer_text is None for record in store.records()) == 960


def test_import_refuses_real_data_that_is_no_chat(test_data: Path, store: TrafficStore) -> None:
    with pytest.raises(InputError, match="not chat traffic: line 1: has neither 'request' nor"):
        import_file(test_data / "traffic" / "answers-nq.jsonl.gz", store)
    assert store.count() == 0
