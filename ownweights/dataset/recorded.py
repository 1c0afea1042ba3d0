"""All answers that a dataset knows to a request, found by the request.

In: a sealed dataset; a chat body. Out: the distinct answers recorded for the same request, whatever
split they are in; none for a request that the dataset does not hold. It keeps where answers lie,
not the answers: some 200 bytes for each distinct request. Invariant: what is found is what reading
every example finds (test_recorded_answers_match_reading_everything).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ownweights.core.errors import ArtefactError
from ownweights.dataset.load import Dataset, split_file
from ownweights.dataset.prompt import request_key
from ownweights.dataset.split import SPLITS


class RecordedAnswers:
    """The answers of one dataset; its files are read once, and again where an answer is wanted."""

    def __init__(self, dataset: Dataset) -> None:
        # one line of a split names all answers that the split knows to its request
        self._lines: defaultdict[str, dict[Path, int]] = defaultdict(dict)
        for split in SPLITS:
            path = dataset.path / split_file(split)
            offset = 0
            with path.open("rb") as file:
                for line in file:
                    request, answers = _read(path, line)
                    if answers:
                        self._lines[request_key(request)].setdefault(path, offset)
                    offset += len(line)

    def of(self, request: Mapping[str, Any]) -> tuple[str, ...]:
        """The distinct answers to this request, in the order of the splits."""
        found: dict[str, None] = {}
        for path, offset in self._lines.get(request_key(request), {}).items():
            with path.open("rb") as file:
                file.seek(offset)
                found |= dict.fromkeys(_read(path, file.readline())[1])
        return tuple(found)


def _read(path: Path, line: bytes) -> tuple[dict[str, Any], list[str]]:
    """Request and references of an example."""
    try:
        example = json.loads(line.decode("utf-8", "surrogatepass"))
        return {"messages": None, **example["request"]}, list(example["references"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{path} holds a line that is no example: {error!r}",
            hint="the file was changed after it was made; build the dataset again",
        ) from None
