"""Examples of erased records, taken out of datasets that are otherwise never changed.

In: by workload, the names of the records and what they asked and answered. Out: the files of every
dataset of these workloads without their examples; their answers also out of the references that
other examples of the same request kept; a tombstone with the hash of every line. An answer that
another record gave as well stays that record's (test_erase_examples_keeps_an_answer_of_another).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownweights.core.artefact import canonical_json
from ownweights.core.project import Project
from ownweights.core.tombstone import rewrite_lines
from ownweights.dataset.dedupe import STUDIED
from ownweights.dataset.load import REMOVED_FILE, Dataset, list_datasets, split_file
from ownweights.dataset.prompt import request_key
from ownweights.dataset.split import SPLITS
from ownweights.traffic.record import Record

_AGAIN = re.compile(r"~\d+\Z")  # after the name of a record that was there twice
ERASED_NAME = "erased"


@dataclass(slots=True)
class Gone:
    """What is erased from one workload: names of records, and their answers by request."""

    names: set[str] = field(default_factory=set[str])
    answers: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, name: str, record: Record | None) -> None:
        """Count a record in, with its bodies where they are known."""
        self.names.add(name)
        if record is None or not isinstance(record.request.get("messages"), list):
            return
        if record.answer_text is not None:
            self.answers[request_key(record.request)].add(record.answer_text)

    def has(self, name: Any) -> bool:
        """Whether an example of this name is one of an erased record."""
        return isinstance(name, str) and (name in self.names or _AGAIN.sub("", name) in self.names)


@dataclass(frozen=True, slots=True)
class ErasedExamples:
    """How many examples of each split of a dataset went."""

    dataset_id: str
    workload: str
    counts: dict[str, int]

    @property
    def studied(self) -> int:
        """Those that students were trained or tuned on."""
        return sum(self.counts.get(split, 0) for split in STUDIED)


def erase_examples(
    project: Project,
    gone: dict[str, Gone],
    on_broken: Callable[[str, str], None] | None = None,
    *,
    dry_run: bool = False,
) -> list[ErasedExamples]:
    """Take erased records out of every dataset; those that held any. `on_broken` is told of
    datasets that cannot be read, which have to be looked at by hand."""
    found: list[ErasedExamples] = []
    for dataset in list_datasets(project, on_broken):
        wanted = gone.get(dataset.workload)
        if wanted is None:
            continue
        counts = {split: _erase_split(dataset, split, wanted, dry_run) for split in SPLITS}
        if not dry_run:
            rewrite_lines(dataset.path, REMOVED_FILE, lambda line, w=wanted: _removed(line, w))
        if any(counts.values()):
            found.append(ErasedExamples(dataset.id, dataset.workload, counts))
    return found


def _erase_split(dataset: Dataset, split: str, gone: Gone, dry_run: bool) -> int:
    path = dataset.path / split_file(split)
    num, kept = 0, defaultdict[str, set[str]](set)
    answers = defaultdict[str, set[str]](set)
    for key, given in gone.answers.items():
        answers[key] |= given
    for example in _examples(path):  # what others answered, and what the erased did
        is_gone = gone.has(example.get("id"))
        num += is_gone
        key = request_key({"messages": None, **example["request"]})
        (answers if is_gone else kept)[key].add(example["target"])
    if dry_run or not (num or answers):
        return num
    lost = {key: given - kept[key] for key, given in answers.items()}

    def rewrite(line: bytes) -> bytes | None:
        example = _decode(line)
        if gone.has(example.get("id")):
            return None
        away = lost.get(request_key({"messages": None, **example["request"]}))
        if not away or not away & set(example["references"]):
            return line
        example["references"] = [one for one in example["references"] if one not in away]
        return canonical_json(example) + b"\n"

    return rewrite_lines(dataset.path, path.name, rewrite)


def _removed(line: bytes, gone: Gone) -> bytes | None:
    row = _decode(line)
    if gone.has(row.get("id")):
        return None
    if gone.has(row.get("like")):
        return canonical_json({**row, "like": ERASED_NAME}) + b"\n"
    return line


def _examples(path: Path) -> Iterable[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield _decode(line)


def _decode(line: bytes) -> dict[str, Any]:
    return json.loads(line.decode("utf-8", "surrogatepass"))
