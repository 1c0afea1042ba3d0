"""Judged rows: what counts, which one a unit sends, and the file."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import ArtefactError
from ownweights.verdict.judged import (
    ANSWERED,
    FAILED,
    INELIGIBLE,
    Judged,
    draw_one_per_unit,
    read_judged,
    unit_hash,
    write_judged,
)


@pytest.mark.parametrize(
    ("status", "harm", "counted"),
    [
        (ANSWERED, 0.0, 0.0),
        (ANSWERED, 1.0, 1.0),
        (ANSWERED, 0.25, 0.25),
        (ANSWERED, None, 1.0),  # nobody could judge it: as bad as harm
        (FAILED, None, 0.0),  # the teacher answered; counted as a loss instead
        (INELIGIBLE, None, 0.0),
    ],
)
def test_counted_harm_is_conservative(status: str, harm: float | None, counted: float) -> None:
    assert Judged("a", "u", "certify", status, -1.0, harm).counted_harm == counted


rows = st.lists(
    st.builds(
        Judged,
        id=st.uuids().map(str),
        unit=st.sampled_from(["u1", "u2", "u3"]),
        split=st.sampled_from(["develop", "certify"]),
        status=st.sampled_from([ANSWERED, FAILED, INELIGIBLE]),
        score=st.floats(-100, 100) | st.just(-math.inf),
        harm=st.sampled_from([None, 0.0, 1.0, 0.1]),
        slices=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    ),
    max_size=12,
)


@given(known=rows)
def test_judged_survives_its_file(tmp_path_factory: pytest.TempPathFactory, known: list[Judged]):
    path = tmp_path_factory.mktemp("judged") / "judged.jsonl"
    write_judged(path, known)
    again = read_judged(path)
    assert Counter(map(repr, again)) == Counter(map(repr, known))
    other = path.with_name("other.jsonl")
    write_judged(other, reversed(known))
    assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        '{"id": "a"}',
        '{"id":"a","unit":"u","split":"s","score":0,"x":1}',
        "[" * 9999,
    ]
    + [
        '{"id":"a","unit":"u","split":"s","score":0,"harm":0,' + changed + "}"
        for changed in (
            '"harm": -100',
            '"harm": 1.5',
            '"harm": NaN',
            '"harm": "0"',
            '"score": NaN',
            '"unit": null',
            '"unit": ["u"]',
            '"status": "good"',
            '"slices": null',
            '"slices": {"a": 1}',
            '"difference": 2',
            '"pair": [0, 2]',
            '"pair": [0]',
            '"score": 1' + "0" * 400,
        )
    ],
)
def test_read_judged_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "judged.jsonl"
    write_judged(path, [Judged("a", "u", "certify")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ArtefactError, match=r"judged\.jsonl:2 is not a judged request"):
        read_judged(path)


def test_read_judged_refuses_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtefactError, match=r"judged\.jsonl is not UTF-8 text"):
        read_judged(path)


@given(known=rows, seed=st.randoms())
def test_draw_always_takes_one_per_unit_whatever_the_order(known: list[Judged], seed) -> None:
    drawn = draw_one_per_unit(known)
    assert sorted(row.unit for row in drawn) == sorted({row.unit for row in known})
    mixed = list(known)
    seed.shuffle(mixed)
    assert draw_one_per_unit(mixed) == drawn


def test_draw_is_blind_to_harm_and_score() -> None:
    """The same ids are drawn when every answer turns out otherwise."""
    good = [Judged(f"id {i}", f"unit {i % 20}", "certify", ANSWERED, 1.0, 0.0) for i in range(100)]
    bad = [Judged(row.id, row.unit, row.split, FAILED) for row in good]
    drawn = [[row.id for row in draw_one_per_unit(rows)] for rows in (good, bad)]
    assert drawn[0] == drawn[1]


def test_draw_gives_every_request_of_a_unit_its_chance() -> None:
    known = [Judged(f"{unit}-{i}", f"{unit}", "certify") for unit in range(3000) for i in range(3)]
    places = Counter(row.id.split("-")[1] for row in draw_one_per_unit(known))
    assert all(900 < count < 1100 for count in places.values())


def test_unit_hash_hides_the_prompt() -> None:
    assert unit_hash("prompt:my secret") == unit_hash("prompt:my secret")
    assert "secret" not in unit_hash("prompt:my secret")
    assert len(unit_hash("")) == 16
    assert unit_hash("half a pair \ud800") != unit_hash("half a pair ")
