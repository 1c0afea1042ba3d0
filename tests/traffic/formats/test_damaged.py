"""Damaged files and odd values cost their own lines, are counted by reason, and never stop."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore, import_file
from ownweights.traffic.formats import ExportFormat, Incoming, Skip, export, read, values_of
from ownweights.traffic.importer import ImportReport
from tests.traffic.formats.test_formats import API_OBSERVATION, OBSERVATION, SPEND_LOG, write_csv
from tests.traffic.samples import answer, line, write_lines

OWN: dict[str, Any] = {
    **line(1), "at": 1_700_000_000, "protocol": "chat", "end_user": "eve", "key_id": "k",
    "upstream": "u", "usage": {"prompt_tokens": 3, "completion_tokens": 4}, "cost_usd": 0.5,
    "latency_ms": 12.5,
}  # fmt: skip
OPENAI: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello", "name": "eve"},
        {"role": "assistant", "content": "hi"},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "id": "o-1",
}
DECODED_LOG = {
    **SPEND_LOG, "response": answer("hi"), "metadata": {"plan": "pro"},
    "proxy_server_request": json.loads(SPEND_LOG["proxy_server_request"]),
}  # fmt: skip
SAMPLES = {"own": OWN, "openai": OPENAI, "langfuse": OBSERVATION, "api": API_OBSERVATION,
           "litellm": SPEND_LOG, "decoded": DECODED_LOG}  # fmt: skip
DEEP_TEXT = '{"x":' + "[" * 5000 + "]" * 5000 + "}"
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 5, 1.5, -0.0, 10**18, 10**300, int("9" * 4000), 1e308, "", " ", "x",
    "nan", "inf", "-1", "1e400", "9" * 5000, "\ufeff", "\x00", "é\u2028", [], [[]], [None], ["x"],
    [{}], [{"role": "user"}], {}, {"": None}, {"a": {"b": []}}, "{", "{}", "[]", '"x"', '{"x":NaN}',
    '{"x":"\\ud800"}', '{"x":' + "9" * 4000 + "}", DEEP_TEXT, json.loads("[" * 150 + "]" * 150),
)  # fmt: skip


def paths_of(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a value."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*before, key)
        if isinstance(inner, dict | list):
            yield from paths_of(inner, (*before, key))


def damaged(sample: dict[str, Any], path: tuple[Any, ...], *odd: Any) -> dict[str, Any]:
    """The sample with one thing replaced, or absent where nothing is given."""
    whole = holder = copy.deepcopy(sample)
    for step in path[:-1]:
        holder = holder[step]
    if odd:
        holder[path[-1]] = odd[0]
    else:
        del holder[path[-1]]
    return whole


def read_or_skip(value: dict[str, Any]) -> Incoming | Skip:
    try:
        return read(value)
    except Skip as skip:
        return skip


def whole_count(report: ImportReport) -> int:
    return report.added + report.duplicates + sum(report.skipped.values())


@pytest.mark.parametrize("name", SAMPLES)
def test_every_field_with_every_odd_value_is_read_or_skipped(name: str) -> None:
    sample = SAMPLES[name]
    for path in paths_of(sample):
        for whole in [damaged(sample, path), *(damaged(sample, path, odd) for odd in ODD)]:
            found = read_or_skip(whole)
            if isinstance(found, Skip):
                assert found.reason
                assert len(str(found)) < 400  # what was said is in no error
                continue
            assert isinstance(found.request, dict)
            assert isinstance(found.response, dict)
            assert found.cost_usd is None or 0 <= found.cost_usd < 1e9
            assert found.latency_ms is None or found.latency_ms >= 0  # the store knows the limit
            assert found.at is None or 0 < found.at < 253_402_300_800


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_stored_of_odd_lines_is_sound_and_goes_out_again(
    store: TrafficStore, tmp_path: Path, name: str
) -> None:
    sample = SAMPLES[name]
    rng = random.Random(7)
    pairs = [(path, odd) for path in paths_of(sample) for odd in ODD]
    lines = [damaged(sample, path, odd) for path, odd in rng.sample(pairs, min(250, len(pairs)))]
    report = import_file(write_lines(tmp_path / "x.jsonl", [sample, *lines]), store)
    assert report.read == len(lines) + 1 == whole_count(report)
    assert store.verify().is_sound
    for record in store.records():
        for form in get_args(ExportFormat):
            value = export(record, form)
            assert value is None or isinstance(read(value).request, dict)


LINES = st.lists(
    st.one_of(
        st.builds(lambda n: json.dumps(line(n)).encode(), st.integers(0, 3)),
        st.builds(lambda n: json.dumps(line(n, response=answer("x"))).encode(), st.integers(0, 3)),
        st.builds(lambda o: json.dumps(line(5, response=o)).encode(), st.sampled_from(ODD)),
        st.builds(lambda o: json.dumps({**SPEND_LOG, "spend": o}).encode(), st.sampled_from(ODD)),
        st.builds(lambda o: json.dumps({**OBSERVATION, "id": o}).encode(), st.sampled_from(ODD)),
        st.just(json.dumps(OPENAI).encode()),
        st.binary(max_size=30).filter(lambda raw: b"\n" not in raw and raw.strip() != b""),
    ),
    max_size=12,
)


@given(LINES)
def test_counts_by_reason_always_add_up(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    path = write_lines(folder / "x.jsonl", [json.dumps(line(77)).encode(), *lines])
    with TrafficStore.open(Project(folder / "p")) as store:
        report = import_file(path, store)
        again = import_file(path, store)
        assert report.read == len(lines) + 1 == whole_count(report)
        assert (again.read, again.added) == (report.read, 0)
        assert again.read == whole_count(again)
        assert store.count() == report.added
        assert store.verify().is_sound


def gzip_of(form: str, number: int = 400) -> bytes:
    """A gzip file of as many requests, its text hard to compress."""
    rng = random.Random(number)
    rows = [{**SPEND_LOG, "request_id": f"r-{n}", "session_id": rng.randbytes(30).hex()}
            for n in range(number)]  # fmt: skip
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return gzip.compress(text.getvalue().encode(), mtime=0)
    return gzip.compress("\n".join(map(json.dumps, rows)).encode(), mtime=0)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.999])
def test_a_gzip_that_was_cut_gives_what_came_before(
    store: TrafficStore, tmp_path: Path, form: str, kept: float
) -> None:
    whole = gzip_of(form)
    path = tmp_path / "x"
    path.write_bytes(whole[: int(len(whole) * kept)])
    report = import_file(path, store)
    assert report.skipped == {"broken_gzip": 1}
    assert 400 * kept * 0.6 < report.added <= 400
    assert report.read == whole_count(report)
    assert "gzip stream is damaged" in report.first_errors[0]
    path.write_bytes(whole)
    assert import_file(path, store).added == 400 - report.added


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_gzip_with_a_flipped_byte_is_a_fault_wherever_it_is(tmp_path: Path, form: str) -> None:
    whole, path = gzip_of(form, 60), tmp_path / "x"
    for at in range(12, len(whole), len(whole) // 40):
        harmed = bytearray(whole)
        harmed[at] ^= 0x55
        path.write_bytes(harmed)
        faults = {one.fault for one in values_of(path, max_line_bytes=10**6)}
        assert faults & {"broken_gzip", "broken_json", "undecodable"}, at


def test_a_document_in_a_gzip_that_was_cut_is_refused(store: TrafficStore, tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    whole = gzip.compress(json.dumps([line(n) for n in range(200)], indent=1).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        import_file(path, store)
    assert store.count() == 0


CELLS = ['say "hi"', "a,b", "two\nlines", "tab\there", " spaces ", "é\u2028\u2029", "'", ";", "\\n",
         '""', "\U0001f600", "=1+1"]  # fmt: skip


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_csv_cells_come_back_however_they_are_quoted(
    store: TrafficStore, tmp_path: Path, bom: bytes, end: str, quoting: Any
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(SPEND_LOG), quoting=quoting, lineterminator=end)
    writer.writeheader()
    for number, cell in enumerate(CELLS):
        asked = {"model": "fast", "messages": [{"role": "user", "content": cell}]}
        writer.writerow({**SPEND_LOG, "request_id": f"r-{number}", "end_user": cell,
                         "proxy_server_request": json.dumps(asked)})  # fmt: skip
    path = tmp_path / "x.csv"
    path.write_bytes(bom + text.getvalue().encode())
    report = import_file(path, store)
    assert (report.read, report.added) == (len(CELLS), len(CELLS))
    records = list(store.records())
    assert [record.request["messages"][0]["content"] for record in records] == CELLS
    assert [record.end_user for record in records] == CELLS


def test_csv_rows_that_are_too_short_or_too_long_cost_themselves_alone(
    store: TrafficStore, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    write_csv(path, [{**SPEND_LOG, "request_id": f"r-{n}"} for n in range(3)], "csv")
    head, *rows = path.read_text().splitlines()
    rows = [rows[0], "only,three,cells", rows[1] + ",more,and,more", rows[2]]
    path.write_text("\n".join([head, *rows]) + "\n")
    report = import_file(path, store)
    assert (report.read, report.added, whole_count(report)) == (4, 3, 4)


@pytest.mark.parametrize("before", [b"\n\n", b"\r\n", b"\xef\xbb\xbf  \n"])
def test_csv_may_begin_with_blank_lines(store: TrafficStore, tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "x.csv"
    write_csv(path, [SPEND_LOG], "csv")
    path.write_bytes(before + path.read_bytes())
    assert import_file(path, store).added == 1


def test_csv_cell_over_the_limit_costs_its_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    long = {**SPEND_LOG, "session_id": "s" * 5000}
    write_csv(path, [SPEND_LOG, long, SPEND_LOG], "csv")
    before = csv.field_size_limit()
    faults = [one.fault for one in values_of(path, max_line_bytes=2000)]
    assert faults[0] is None
    assert faults[-1] is None
    assert "broken_json" in faults
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name", ["own", "openai", "langfuse", "litellm"])
@pytest.mark.parametrize("shape", ["lines", "array", "pretty"])
def test_a_byte_order_mark_is_no_damage(
    store: TrafficStore, tmp_path: Path, name: str, shape: str
) -> None:
    sample = SAMPLES[name]
    text = {"lines": json.dumps(sample) + "\n", "array": json.dumps([sample]),
            "pretty": json.dumps([sample], indent=3)}[shape]  # fmt: skip
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert import_file(path, store).added == 1


def test_our_line_with_a_field_named_like_a_page_is_still_a_line(
    store: TrafficStore, tmp_path: Path
) -> None:
    lines = [{**OWN, "data": []}, {**line(2), "observations": [1]}, {**OPENAI, "observations": []}]
    report = import_file(write_lines(tmp_path / "x.jsonl", lines), store)
    assert (report.read, report.added) == (3, 3)
