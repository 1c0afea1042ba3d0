"""Reading files of JSON lines, plain or gzip, where any line may be broken.

In: a path. Out: one `Line` for each non-blank line, with its number and either its object or its
`fault`; callers decide what a fault means. Lines end at b"\\n" alone, because U+2028 and other
separators occur inside lines (test_read_jsonl_keeps_u2028_inside_a_line). Memory stays within a
line's limit whatever the file holds (test_read_jsonl_drops_a_line_too_long).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from ownweights.core.errors import InputError

MAX_LINE_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"

Fault = Literal["broken_json", "undecodable", "not_object", "too_long", "broken_gzip"]


@dataclass(frozen=True, slots=True)
class _Damage:
    """Where a stream broke: why, and the bytes since the last newline."""

    error: Exception
    pending: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: `value` when it is a JSON object, else `fault` and `what` went wrong."""

    number: int
    value: dict[str, Any] | None
    fault: Fault | None = None
    what: str = ""
    size_bytes: int = 0


def read_jsonl(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Each non-blank line of a file, in order; a gzip file is known by its first bytes.

    A damaged gzip stream ends with a Line of fault `broken_gzip`; what came before it is kept, and
    so is a last line that lacks no more than its newline.
    Raises: InputError when the file cannot be opened
    """
    with _open(path) as file:
        is_gzip = file.peek(2)[:2] == _GZIP_MAGIC
        source = gzip.GzipFile(fileobj=file) if is_gzip else file
        for number, raw in enumerate(_raw_lines(source, max_line_bytes), start=1):
            if isinstance(raw, _Damage):
                yield from _lines_at_damage(number, raw)
            elif raw is None:
                yield Line(number, None, "too_long", f"longer than {max_line_bytes:,} bytes")
            elif raw.strip():
                yield parse_line(number, raw)


def parse_line(number: int, raw: bytes) -> Line:
    """The Line for the bytes of one line."""
    if number == 1:
        raw = raw.removeprefix(_BOM)
    try:
        value = decode_json(raw)
    except UnicodeError as error:
        return Line(number, None, "undecodable", f"not UTF-8 text: {error}")
    except RecursionError:
        return Line(number, None, "broken_json", "nested too deeply")
    except ValueError as error:
        return Line(number, None, "broken_json", f"not JSON: {error}")
    if not isinstance(value, dict):
        what = f"expected a JSON object, got {type(value).__name__}"
        return Line(number, None, "not_object", what)
    return Line(number, cast("dict[str, Any]", value), size_bytes=len(raw))


def decode_json(raw: bytes) -> Any:
    """The value of strict JSON text.

    Raises: UnicodeError for bytes or escapes that are not text (lone surrogates), ValueError for
    anything else that is not JSON (NaN and infinities too)
    """
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        raw.decode("utf-8")  # text comes first: a file in another encoding is no JSON either
        if b"\\ud" in raw or b"\\uD" in raw:
            _refuse_lone_surrogates(raw)
        raise


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 JSON on one line; lone surrogates are written as escapes, NaN as null.

    Raises: TypeError for what JSON has no word for
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def _lines_at_damage(number: int, damage: _Damage) -> list[Line]:
    last = parse_line(number, damage.pending)
    whole = [last] if last.fault is None else []
    what = f"the gzip stream is damaged: {damage.error}"
    return [*whole, Line(number + len(whole), None, "broken_gzip", what)]


def _refuse_lone_surrogates(raw: bytes) -> None:
    try:
        value = json.loads(raw)
    except ValueError:
        return
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _raw_lines(
    file: BufferedReader | gzip.GzipFile, max_line_bytes: int
) -> Iterator[bytes | _Damage | None]:
    """The bytes between newlines; None for a line over the limit; at the end, what broke."""
    pending: list[bytes] = []
    pending_bytes = 0
    while True:
        try:
            chunk = file.read1(_CHUNK_BYTES)  # unlike read, loses nothing before an error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield _Damage(error, b"".join(pending))
            return
        if not chunk:
            break
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            whole_bytes = pending_bytes + len(piece)
            yield b"".join([*pending, piece]) if whole_bytes <= max_line_bytes else None
            pending, pending_bytes = [], 0
        pending_bytes += len(rest)
        pending = [*pending, rest] if pending_bytes <= max_line_bytes else []
    if pending_bytes:
        yield b"".join(pending) if pending_bytes <= max_line_bytes else None
