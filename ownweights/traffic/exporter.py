"""Traffic to files: every record in our own chat format, or whole answers for fine-tuning.

Our own format comes back as it went out (test_export_own_comes_back_the_same). OpenAI's fine-tuning
format holds ok records that are chats alone, since it has no word for a cut-off answer
(test_export_openai_leaves_out_what_an_import_would_skip).
"""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ownweights.core.errors import InputError
from ownweights.core.jsonl import encode_json
from ownweights.traffic.chat import answer_fault, request_fault
from ownweights.traffic.record import Record

ExportFormat = Literal["own", "openai"]
_SAMPLING_FIELDS = ("tools", "functions", "parallel_tool_calls", "response_format")


def export_line(record: Record, export_format: ExportFormat) -> bytes | None:
    """One record as a line of JSON; None when the format cannot hold it."""
    if export_format == "openai":
        messages: Any = record.request.get("messages")
        if record.status != "ok" or request_fault(messages) or answer_fault(record.response):
            return None
        fields = {k: record.request[k] for k in _SAMPLING_FIELDS if k in record.request}
        answer = {"role": "assistant", **record.message}
        return encode_json({"messages": [*messages, answer], **fields}) + b"\n"
    named = {"workload": record.workload, "session": record.session}
    line: dict[str, Any] = {
        "id": record.source_id or record.id,
        "request": record.request,
        "response": record.response,
        "metadata": {**record.metadata, **{k: v for k, v in named.items() if v is not None}},
    }
    if record.answered_at is not None:
        line["at"] = record.answered_at
    return encode_json(line) + b"\n"


def export_file(records: Iterable[Record], path: Path, export_format: ExportFormat) -> int:
    """Write records to a file, gzip where its name says so; how many lines it has.

    The file appears whole or not at all.
    Raises: InputError when it cannot be written
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    written = 0
    try:
        with gzip.open(draft, "wb") if path.suffix == ".gz" else draft.open("wb") as file:
            for record in records:
                if (line := export_line(record, export_format)) is not None:
                    file.write(line)
                    written += 1
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
    finally:
        draft.unlink(missing_ok=True)
    return written
