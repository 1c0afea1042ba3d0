"""The values in a file: JSON lines, one whole JSON document, or CSV with a head; plain or gzip.

What a file is, is told from its first bytes. A document and a row that are broken are one Line with
a fault, as a broken line is. A document is read whole, so its size is limited; lines are not.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any, cast

from ownweights.core.errors import InputError
from ownweights.core.jsonl import Line, decode_json, read_jsonl
from ownweights.traffic.formats.sort import unwrap

MAX_DOCUMENT_BYTES = 512 * 2**20
_HEAD_BYTES = 64 * 2**10
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_STEP_BYTES = 64  # inflates to 64 KiB at most
_CSV_COLUMNS = ({"request_id", "startTime", "spend"}, {"trace_id", "type"}, {"traceId", "type"})


def values_of(path: Path, *, max_line_bytes: int) -> Iterator[Line]:
    """Each value of a file, in order, those inside of pages and traces one by one.

    Raises: InputError when the file cannot be opened, or a document is too large
    """
    head = _head(path)
    if _is_csv(head):
        lines = _rows(path, max_line_bytes)
    elif _is_document(head):
        lines = _document(path)
    else:
        lines = read_jsonl(path, max_line_bytes=max_line_bytes)
    for line in lines:
        if line.value is None or not line.value.keys() & {"data", "observations"}:
            yield line
            continue
        for value in unwrap(line.value):
            yield Line(line.number, value, size_bytes=line.size_bytes)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if raw[:2] == _GZIP_MAGIC:
        raw = _inflated(raw)
    return raw.removeprefix(b"\xef\xbb\xbf").lstrip()


def _inflated(raw: bytes) -> bytes:
    """What the start of a gzip stream holds, up to where it is damaged."""
    stream, head = zlib.decompressobj(wbits=31), b""
    with contextlib.suppress(zlib.error):
        for start in range(0, len(raw), _GZIP_STEP_BYTES):
            head += stream.decompress(raw[start : start + _GZIP_STEP_BYTES])
            if len(head) >= _HEAD_BYTES:
                break
    return head


def _is_csv(head: bytes) -> bool:
    if head[:1] in (b"{", b"[", b""):
        return False
    first = head.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    columns = {name.strip().strip('"') for name in first.split(",")}
    return any(wanted <= columns for wanted in _CSV_COLUMNS)


def _is_document(head: bytes) -> bool:
    """Whether it is an array, or an object that does not end where its first line does."""
    first, newline, rest = head.partition(b"\n")
    if head[:1] == b"[":
        return not rest.strip() or not _is_whole(first)
    return (
        head[:1] == b"{"
        and bool(newline and rest.strip())
        and (first.rstrip().endswith((b"{", b"[", b",")) and not _is_whole(first))
    )


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON value by itself, as in JSON lines."""
    try:
        decode_json(line)
    except (ValueError, RecursionError):
        return False
    return True


def _document(path: Path) -> Iterator[Line]:
    raw = _whole(path)
    try:
        value: Any = decode_json(raw.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeError as error:
        yield Line(1, None, "undecodable", f"not UTF-8 text: {error}")
        return
    except (ValueError, RecursionError) as error:
        yield Line(1, None, "broken_json", f"not JSON: {error}")
        return
    listed = cast("list[Any]", value) if isinstance(value, list) else [value]
    for number, one in enumerate(listed, start=1):
        if isinstance(one, dict):
            size_bytes = len(raw) // len(listed)
            yield Line(number, cast("dict[str, Any]", one), size_bytes=size_bytes)
        else:
            what = f"expected a JSON object, got {type(one).__name__}"
            yield Line(number, None, "not_object", what)


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
    try:
        with gzip.open(path, "rb") if is_gzip else path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"is one JSON document of more than {MAX_DOCUMENT_BYTES // 2**20} MiB",
            where=str(path),
            hint="export it as JSON lines, which have no limit",
        )
    return raw


def _rows(path: Path, max_line_bytes: int) -> Iterator[Line]:
    """The rows of a CSV file; a cell that is JSON stays text, which its form decodes."""
    with path.open("rb") as probe:
        is_gzip = probe.read(2) == _GZIP_MAGIC
    old = csv.field_size_limit(max_line_bytes)
    try:
        with gzip.open(path, "rb") if is_gzip else path.open("rb") as file:
            text = io.TextIOWrapper(cast("Any", file), "utf-8-sig", newline="")
            reader = csv.DictReader(dropwhile(str.isspace, text))  # the head may come late
            number = 1
            while True:
                number += 1
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except UnicodeDecodeError as error:
                    yield Line(number, None, "undecodable", f"not UTF-8 text: {error}")
                    return
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    yield Line(number, None, "broken_gzip", f"the gzip stream is damaged: {error}")
                    return
                except csv.Error as error:
                    yield Line(number, None, "broken_json", f"not a row of CSV: {error}")
                    continue
                value = {key: cell for key, cell in row.items() if isinstance(key, str)}
                value = {key: cell for key, cell in value.items() if cell not in ("", None)}
                yield Line(number, value, size_bytes=len(json.dumps(value)))
    finally:
        csv.field_size_limit(old)
