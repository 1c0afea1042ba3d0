"""Looks, incidents, and what an incident voids."""

from __future__ import annotations

import itertools

import pytest

from ownweights.verdict.certificate import Subject
from ownweights.verdict.drift.outcome import (
    CHANGED,
    COULD_NOT_TELL,
    SAME,
    Finding,
    Incident,
    Look,
    Outcome,
    worst,
)


def look(*outcomes: Outcome) -> Look:
    findings = tuple(Finding(f"c{i}", one, "…") for i, one in enumerate(outcomes))
    return Look(1, 0.0, findings, 10, 0)


def incident(**changed: object) -> Incident:
    given: dict[str, object] = {
        "teacher": "main", "opened_at": 1000.0, "unchanged_at": 900.0, "look": 3,
        "models": ("big-1", "big-2"), "fingerprints": ("fp",),
        "findings": (Finding("length", CHANGED, "median characters 9 → 4"),),
    }  # fmt: skip
    return Incident(**{**given, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("order", list(itertools.permutations((SAME, CHANGED, COULD_NOT_TELL))))
def test_outcome_of_a_look_is_its_worst(order: tuple[Outcome, ...]) -> None:
    assert look(*order).outcome == CHANGED
    without = [one for one in order if one != CHANGED]
    assert look(*without).outcome == COULD_NOT_TELL
    assert look(SAME, SAME).outcome == SAME


def test_outcome_of_nothing_is_could_not_tell() -> None:
    assert worst([]) == look().outcome == COULD_NOT_TELL


def test_look_names_the_channels_that_changed() -> None:
    assert [f.channel for f in look(SAME, CHANGED, COULD_NOT_TELL, CHANGED).changed] == ["c1", "c3"]


@pytest.mark.parametrize(
    ("teachers", "period", "is_void"),
    [
        (("big-1",), (0.0, 500.0), True),
        (("other", "big-2"), (0.0, 500.0), True),
        (("other",), (0.0, 500.0), False),
        ((), (0.0, 500.0), False),
        (("big-1",), None, True),  # nobody knows when its data came
        (("big-1",), (999.0, 2000.0), True),  # some of its data may be older
        (("big-1",), (1000.0, 2000.0), False),  # all of its data are newer
    ],
)
def test_incident_voids_what_names_its_model_and_is_not_newer(
    teachers: tuple[str, ...], period: tuple[float, float] | None, is_void: bool
) -> None:
    assert incident().voids(Subject(teachers=teachers, period=period)) is is_void


def test_incident_says_who_changed_and_in_what() -> None:
    found = incident()
    assert found.name == "main/1000"
    assert found.reason == (
        "the endpoint behind big-1, big-2 changed (length: median characters 9 → 4)"
    )
    assert incident(models=()).reason.startswith("the endpoint behind main changed")
