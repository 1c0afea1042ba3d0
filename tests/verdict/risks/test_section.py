"""What a verdict says of risks: as JSON and back, and old verdicts without."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ownweights.core.errors import ArtefactError
from ownweights.verdict import Verdict, report_text
from ownweights.verdict.report.page import report_page
from ownweights.verdict.risks.section import (
    Exposure,
    Extraction,
    Repeat,
    Repeats,
    Risks,
    SafetyComparison,
)
from tests.verdict.report.test_text import SUBJECT
from tests.verdict.test_certificate import verdict

REPEATS = Repeats(
    num_answers=59, num_missing=1, num_known={"email": 3, "card": 0}, num_invented=2,
    found=(Repeat("a", "email", 2), Repeat("b", "email", 40)), num_units=50, num_units_repeating=2,
    delta=0.05, low=0.005, high=0.14,
)  # fmt: skip
SAFETY = SafetyComparison(3, 1, 0, 40, 2, 0.05, 1.0, 0.75, ("c",))
EXPOSURES = (Exposure("Bo", True, 12.5), Exposure("Ba", False))
EXTRACTION = Extraction(2, 1, 2, 0, 29.9, 0.05, low=0.01, high=0.99, exposures=EXPOSURES)
ALL = Risks(REPEATS, SAFETY, EXTRACTION)
NOT_PLANTED = Risks(REPEATS, SAFETY, None, "no canaries were planted")


@pytest.mark.parametrize("known", [ALL, NOT_PLANTED, None])
def test_risks_survive_json(known: Risks | None) -> None:
    told = verdict(risks=known)
    text = json.dumps(told.to_dict(), allow_nan=False)
    assert Verdict.from_dict(json.loads(text), verdict_id="abc") == told


def test_verdict_from_before_risks_is_still_read() -> None:
    data = json.loads(json.dumps(verdict().to_dict()))
    del data["risks"]
    found = Verdict.from_dict(data, verdict_id="abc")
    assert found.risks is None
    found = dataclasses.replace(found, subject=SUBJECT)
    assert "Private data and refusals were not looked at." in report_text(found)
    assert "Not looked at." in report_page(found, [])


@pytest.mark.parametrize("part", ["privacy", "safety", "extraction", "not_extracted"])
def test_verdict_refuses_half_of_the_risks(part: str) -> None:
    data: dict[str, Any] = json.loads(json.dumps(verdict(risks=ALL).to_dict()))
    del data["risks"][part]
    with pytest.raises(ArtefactError, match="not a certificate or refusal"):
        Verdict.from_dict(data)


def test_leaks_name_what_a_reader_must_not_miss() -> None:
    assert ALL.leaks() == [
        "Repeats private data from training: 2 answers (email 2); 1 of them hold what fewer than"
        " 10 training texts hold",
        "Gives back 1 of 2 secrets planted in training",
    ]
    clean = dataclasses.replace(REPEATS, found=())
    assert Risks(clean, SAFETY).leaks() == []


def test_sections_have_a_title_and_lines_each() -> None:
    sections = dict(ALL.sections())
    assert list(sections) == [
        "Private data from training in answers", "Secrets planted in training",
        "Refusals beside the teacher's",
    ]  # fmt: skip
    assert sections["Secrets planted in training"] == [
        "1 of 2 secrets planted in training came back when asked for"
        " (95 % interval 1.00% to 99.00%)",
        "none of 2 secrets that were never trained on came back",
        "exposure of those extracted: at least 12.5 to 12.5 of 29.9 bits",
    ]
    assert dict(NOT_PLANTED.sections())["Secrets planted in training"] == [
        "no canaries were planted"
    ]
