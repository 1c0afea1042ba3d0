"""All answers that a dataset knows to a request, against reading all of its examples."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.dataset import SPLITS, Dataset
from ownweights.dataset.prompt import request_key
from ownweights.dataset.recorded import RecordedAnswers
from tests.dataset.records import body, built, phrase, record


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """60 questions asked 400 times in sessions, so that one is in several splits, with 3 answers;
    some answers cannot be compared with, some requests want JSON."""
    rng = random.Random(0)
    records = [
        record(
            says=rng.choice(["A", "B \ud83d", "C", ""]), id=f"r{i}", session=f"s{i // 4}",
            request=body(
                phrase(rng.randrange(60)),
                **rng.choice([{}, {}, {"response_format": {"type": "json_object"}}]),
            ),
        )
        for i in range(400)
    ]  # fmt: skip
    return built(Project(tmp_path), records, split_by="session")


def test_recorded_answers_match_reading_everything(dataset: Dataset) -> None:
    known = RecordedAnswers(dataset)
    examples = [one for split in SPLITS for one in dataset.examples(split)]
    sizes = set[int]()
    for one in examples:
        alike = [e for e in examples if request_key(e.request) == request_key(one.request)]
        expected = {text for other in alike for text in other.references}
        found = known.of({**one.request, "temperature": 0.5, "model": "another"})
        assert len(found) == len(expected) and set(found) == expected
        sizes.add(len(found))
    assert len(sizes) > 1
    assert known.of(body("never asked")) == ()


def test_recorded_answers_of_a_changed_file_are_refused(dataset: Dataset) -> None:
    with (dataset.path / "test.jsonl").open("a") as file:
        file.write('{"references": []}\n')
    with pytest.raises(ArtefactError, match=r"test.jsonl holds a line that is no example"):
        RecordedAnswers(dataset)
