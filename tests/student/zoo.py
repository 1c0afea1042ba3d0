"""A workload so small that a tiny base learns it at once: name the animal of a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ownweights.core.project import Project
from ownweights.dataset import Dataset, build_dataset
from ownweights.student.train import StudentOptions
from ownweights.traffic import Record, make_record
from tests.tiny import BASE_NAME, make_base

WORKLOAD = "zoo"
SYSTEM = "You name the animal."
ANIMALS = ("fox", "owl", "bee", "hen", "cat")
PLACES = ("mill", "hill", "pond", "barn", "lane", "wood", "roof", "well", "shed", "moor")
QUICK = StudentOptions(base=BASE_NAME, rank=4, epochs=2, rows_per_step=8, learning_rate=0.01)


def make_records(count: int = 50, *, long: int = 0, as_json: bool = False) -> list[Record]:
    """Questions whose answer is a word of them; the last `long` ones are too long to be read."""
    records: list[Record] = []
    for k in range(count):
        animal, place = ANIMALS[k % 5], PLACES[k // 5 % 10]
        text = f"a {animal} by the {place}" + (" and so on" * 20 if k >= count - long else "")
        answer = f'{{"animal":"{animal}"}}' if as_json else animal
        records.append(record_of(text, answer, f"zoo-{k}"))
    return records


def record_of(text: str, answer: str, name: str) -> Record:
    """One request of the workload with its answer."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    choice = {
        "index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop",
    }  # fmt: skip
    response = {"model": "labelled-by-people", "choices": [choice]}
    request = {"model": "m", "messages": messages}
    record = make_record(request, response, role="imported", workload=WORKLOAD, at=1.0)
    return replace(record, source_id=name)


def make_project(folder: Path, records: Sequence[Record] | None = None) -> tuple[Project, Dataset]:
    """A project with a tiny base and one dataset."""
    project = Project(folder)
    make_base(folder / BASE_NAME)
    return project, build_dataset(records or make_records(), project, workload=WORKLOAD)
