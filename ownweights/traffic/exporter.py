"""Traffic to files: every record in our own format, or what another format has a word for.

Our own format comes back as it went out (test_export_own_comes_back_the_same). OpenAI's fine-tuning
format holds ok records that are chats alone, since it has no word for a cut-off answer
(test_export_openai_leaves_out_what_an_import_would_skip); Langfuse's and LiteLLM's hold answered
chats (test_forms_come_back_as_they_went_out).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

from ownweights.core.artefact import appearing
from ownweights.core.errors import InputError
from ownweights.core.jsonl import encode_json
from ownweights.traffic.formats import ExportFormat, export
from ownweights.traffic.record import Record


def export_line(record: Record, export_format: ExportFormat) -> bytes | None:
    """One record as a line of JSON; None when the format cannot hold it."""
    value = export(record, export_format)
    return None if value is None else encode_json(value) + b"\n"


def export_file(records: Iterable[Record], path: Path, export_format: ExportFormat) -> int:
    """Write records to a file, gzip where its name says so; how many lines it has.

    The file appears whole or not at all; a device or a pipe is written to as it is.
    Raises: InputError when it cannot be written
    """
    is_gzip = path.suffix == ".gz"
    written = 0
    try:
        with (
            appearing(path) as draft,
            gzip.open(draft, "wb") if is_gzip else draft.open("wb") as file,
        ):
            for record in records:
                if (line := export_line(record, export_format)) is not None:
                    file.write(line)
                    written += 1
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
    return written
