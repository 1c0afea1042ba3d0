"""Lines of JSON, however broken the file that holds them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError
from ownweights.core.jsonl import Line, decode_json, encode_json, parse_line, read_jsonl

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def write(path: Path, data: bytes, *, is_gzip: bool = False) -> Path:
    path.write_bytes(gzip.compress(data, mtime=0) if is_gzip else data)
    return path


def faults(path: Path, **options: Any) -> list[tuple[int, str | None]]:
    return [(line.number, line.fault) for line in read_jsonl(path, **options)]


@pytest.mark.parametrize("is_gzip", [False, True])
def test_read_jsonl_yields_objects_with_their_numbers(tmp_path: Path, is_gzip: bool) -> None:
    path = write(tmp_path / "a.any", b'{"a":1}\n\n  \n{"a":2}\r\n{"a":3}', is_gzip=is_gzip)
    lines = list(read_jsonl(path))
    assert [(line.number, line.value) for line in lines] == [
        (1, {"a": 1}), (4, {"a": 2}), (5, {"a": 3})
    ]  # fmt: skip
    assert lines[0].size_bytes == 7


def test_read_jsonl_keeps_u2028_inside_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be"
    data = b"\n".join([json.dumps({"t": text}, ensure_ascii=False).encode()] * 2)
    values = [line.value for line in read_jsonl(write(tmp_path / "a", data))]
    assert values == [{"t": text}] * 2


def test_read_jsonl_drops_a_byte_order_mark(tmp_path: Path) -> None:
    assert faults(write(tmp_path / "a", b'\xef\xbb\xbf{"a":1}\n{}')) == [(1, None), (2, None)]


@pytest.mark.parametrize(
    ("raw", "fault", "says"),
    [
        (b'{"a": 1', "broken_json", "not JSON: "),
        (b"[1, 2]", "not_object", "expected a JSON object, got list"),
        (b"null", "not_object", "expected a JSON object, got NoneType"),
        (b'{"a": NaN}', "broken_json", "not JSON: "),
        (b'{"a": 1} {"b": 2}', "broken_json", "not JSON: "),
        (b'{"a": "\xff\xfe"}', "undecodable", "not UTF-8 text: "),
        ('{"a": 1}'.encode("utf-16"), "undecodable", "not UTF-8 text: "),
        (rb'{"a": "x\ud83d y"}', "undecodable", "surrogates not allowed"),
        (rb'{"a": "\ud83d', "broken_json", "not JSON: "),
        (b'{"a":' + b"[" * 100_000, "broken_json", "nested too deeply"),
    ],
)
def test_parse_line_names_the_fault(raw: bytes, fault: str, says: str) -> None:
    line = parse_line(7, raw)
    assert (line.number, line.value, line.fault) == (7, None, fault)
    assert says in line.what


def test_read_jsonl_goes_on_after_a_broken_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b'{"a":1}\nnope\n\xff\n[]\n{"a":2}\n')
    assert faults(path) == [
        (1, None), (2, "broken_json"), (3, "undecodable"), (4, "not_object"), (5, None)
    ]  # fmt: skip


def test_read_jsonl_drops_a_line_too_long(tmp_path: Path) -> None:
    long = b'{"a":"' + b"x" * 5_000_000 + b'"}'
    data = b"\n".join([b"{}", long, b'{"b":1}', long])
    lines = list(read_jsonl(write(tmp_path / "a", data, is_gzip=True), max_line_bytes=4_999_999))
    assert [(line.number, line.fault) for line in lines] == [
        (1, None), (2, "too_long"), (3, None), (4, "too_long")
    ]  # fmt: skip
    assert lines[1].what == "longer than 4,999,999 bytes"


def test_read_jsonl_takes_a_line_of_just_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b'{"a":1}\n{"a":10}\n{"a":1}')
    assert faults(path, max_line_bytes=7) == [(1, None), (2, "too_long"), (3, None)]


def test_read_jsonl_holds_no_more_than_a_line(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b"x" * 2**20)  # one line of 64 MiB, 300 kB on disk
    tracemalloc.start()
    try:
        assert faults(path, max_line_bytes=2**20) == [(1, "too_long")]
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def whole_gzip(lines: int) -> bytes:
    text = b"".join(b'{"number": %d}\n' % n for n in range(lines))
    return gzip.compress(text, mtime=0)


@pytest.mark.parametrize("num_lines", [2_000, 200_000])
def test_read_jsonl_keeps_what_precedes_a_cut_in_gzip(tmp_path: Path, num_lines: int) -> None:
    data = whole_gzip(num_lines)
    lines = list(read_jsonl(write(tmp_path / "a", data[: len(data) * 9 // 10])))
    assert lines[-1].fault == "broken_gzip"
    assert lines[-1].what.startswith("the gzip stream is damaged: ")
    good = [line.value for line in lines[:-1]]
    assert len(good) > num_lines * 3 // 4
    assert good == [{"number": n} for n in range(len(good))]


@pytest.mark.parametrize("garbage", [b"not gzip at all", b"\x1f\x8b\x08\x00garbage"])
def test_read_jsonl_reports_garbage_after_gzip(tmp_path: Path, garbage: bytes) -> None:
    path = write(tmp_path / "a", whole_gzip(3) + garbage)
    assert [fault for _, fault in faults(path)][-1] == "broken_gzip"


def test_read_jsonl_reports_a_wrong_checksum(tmp_path: Path) -> None:
    data = bytearray(whole_gzip(3))
    data[-6] ^= 1
    assert faults(write(tmp_path / "a", bytes(data)))[-1] == (4, "broken_gzip")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (b'{"a":1}\n{"a":2}', [1, 2]),
        (b'{"a":1}', [1]),
        (b'{"a":1}\n{"a":2', [1]),
        (b'{"a":1}\n  ', [1]),
        (b'{"a":1}\n[2]', [1]),
    ],
)
@pytest.mark.parametrize("damage", ["garbage", "checksum", "end"])
def test_read_jsonl_takes_a_whole_last_line_before_damage(
    tmp_path: Path, text: bytes, good: list[int], damage: str
) -> None:
    data = gzip.compress(text, mtime=0)
    broken = {
        "garbage": data + b"not gzip",
        "checksum": data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
        "end": data[:-3],
    }
    *before, last = read_jsonl(write(tmp_path / "a", broken[damage]))
    assert [line.value for line in before] == [{"a": number} for number in good]
    assert (last.number, last.fault) == (len(good) + 1, "broken_gzip")


def test_read_jsonl_reads_gzip_members_in_turn(tmp_path: Path) -> None:
    assert len(faults(write(tmp_path / "a", whole_gzip(3) + whole_gzip(2)))) == 5


def test_read_jsonl_of_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    assert faults(write(tmp_path / "a", b"")) == []
    assert faults(write(tmp_path / "b", b"", is_gzip=True)) == []


@pytest.mark.parametrize(
    ("name", "says"), [("missing", "No such file"), ("folder", "Is a directory")]
)
def test_read_jsonl_refuses_what_is_no_file(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"{name}: cannot be read: {says}"):
        list(read_jsonl(tmp_path / name))


@given(values=st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=3), max_size=5))
def test_encode_json_always_reads_back_line_by_line(values: list[dict[str, Any]]) -> None:
    lines = b"\n".join(map(encode_json, values)).split(b"\n") if values else []
    assert [parse_line(n, raw) for n, raw in enumerate(lines, 2)] == [
        Line(n, value, size_bytes=len(raw))
        for n, (value, raw) in enumerate(zip(values, lines, strict=True), 2)
    ]


def test_encode_json_spells_lone_surrogates_out() -> None:
    assert encode_json({"a": "\ud83d"}) == rb'{"a":"\ud83d"}'
    with pytest.raises(UnicodeError, match="surrogates not allowed"):
        decode_json(rb'{"a":"\ud83d"}')


def test_encode_json_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(TypeError, match="unsupported"):
        encode_json({"a": object()})
