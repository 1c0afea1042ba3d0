"""Canaries: made, planted in train alone, told on the card."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ownweights.core.errors import ArtefactError, InputError
from ownweights.core.project import Project
from ownweights.dataset import export_split
from ownweights.dataset.canary import canaries_of, make_canaries, plant_canaries, random_secrets
from ownweights.dataset.example import Example
from ownweights.dataset.load import split_file
from tests.dataset.records import built, example, many

CANARIES = make_canaries(10, "dataset1")


def test_canaries_are_the_same_everywhere() -> None:
    assert make_canaries(10, "dataset1") == CANARIES
    assert make_canaries(10, "dataset2") != CANARIES
    text = "|".join(f"{one.name} {one.secret} {one.is_planted}" for one in CANARIES)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2932dd44146ae998"


def test_canaries_are_distinct_and_halved() -> None:
    many = make_canaries(300, "x", num_digits=7)
    assert len({one.name for one in many}) == 600
    assert sum(one.is_planted for one in many) == 300
    assert all(len(one.secret) == 7 and one.secret.isdigit() for one in many)
    digits = np.array([int(d) for one in many for d in one.secret])
    assert stats.chisquare(np.bincount(digits, minlength=10)).pvalue > 1e-4
    assert CANARIES[0].secret in CANARIES[0].target
    assert CANARIES[0].secret not in "".join(CANARIES[0].prompts)


@pytest.mark.parametrize(("num", "digits"), [(0, 9), (5, 5)])
def test_make_canaries_refuses_too_little(num: int, digits: int) -> None:
    with pytest.raises(InputError, match=f"{num} canaries of {digits} digits"):
        make_canaries(num, "x", num_digits=digits)


def examples(count: int) -> list[Example]:
    return [example(f"question {number}", id=f"e{number}") for number in range(count)]


def test_plant_canaries_puts_the_planted_ones_among_the_others() -> None:
    canaries = make_canaries(10, "dataset1", repeats=3)
    known = examples(400)
    mixed = plant_canaries(known, canaries, "s")
    added = [one for one in mixed if one.metadata]
    assert [one for one in mixed if not one.metadata] == known
    assert sorted(one.target for one in added) == sorted(
        one.target for one in canaries if one.is_planted for _ in range(3)
    )
    assert len({one.id for one in mixed}) == 430
    assert len({one.unit for one in added}) == 30
    assert mixed == plant_canaries(known, canaries, "s")
    assert mixed != plant_canaries(known, canaries, "t")
    places = [at for at, one in enumerate(mixed) if one in added]
    assert stats.kstest(np.array(places) / 430, "uniform").pvalue > 1e-4
    assert added[0].to_json()["metadata"] == {"canary": True}


@pytest.mark.parametrize("count", [0, 99])
def test_plant_canaries_refuses_to_be_much_of_the_training(count: int) -> None:
    message = f"10 canaries are too many for {count} training examples"
    with pytest.raises(InputError, match=message) as info:
        plant_canaries(examples(count), CANARIES, "s")
    assert f"at most {count // 10}" in (info.value.hint or "")
    assert len(plant_canaries(examples(100), CANARIES, "s")) == 110


def test_random_secrets_are_of_the_same_form() -> None:
    found = random_secrets(500, 9, "x")
    assert len(set(found)) == 500
    assert all(len(one) == 9 and one.isdigit() for one in found)
    assert found[:9] == random_secrets(9, 9, "x") != random_secrets(9, 9, "y")


@pytest.mark.parametrize("planted", [1, 3])
def test_canaries_survive_a_card(planted: int) -> None:
    canaries = make_canaries(4, "x", repeats=planted)
    card = {"facts": {"canaries": [one.to_json() for one in canaries]}}
    assert canaries_of(json.loads(json.dumps(card))) == canaries
    assert canaries_of({"facts": {}}) == canaries_of({}) == []


@pytest.mark.parametrize(
    "broken", [[{"name": "Bo"}], ["Bo"], 7, [{"name": "", "secret": "", "num_planted": "x"}]]
)
def test_canaries_of_refuses_a_broken_card(broken: Any) -> None:
    with pytest.raises(ArtefactError, match="canaries on the card of dataset d1 cannot be read"):
        canaries_of({"id": "d1", "facts": {"canaries": broken}})


def test_build_dataset_with_canaries_changes_nothing_else(project: Project) -> None:
    records = many(300)
    bare, planted = built(project, records), built(project, records, canaries=8)
    assert bare.id != planted.id
    for split in ("develop", "certify", "test"):
        name = split_file(split)
        assert (planted.path / name).read_bytes() == (bare.path / name).read_bytes()
    lines = (planted.path / "train.jsonl").read_bytes().splitlines()
    kept = [line for line in lines if not json.loads(line)["id"].startswith("canary-")]
    assert kept == (bare.path / "train.jsonl").read_bytes().splitlines()
    assert len(lines) == len(kept) + 8 == planted.counts["train"]
    facts, old = planted.card["facts"], bare.card["facts"]
    changed = {key for key in facts if facts[key] != old.get(key)}
    assert changed == {"canaries", "counts"}
    assert facts["units"] == old["units"]
    assert planted.prune == bare.prune


def test_build_dataset_tells_its_canaries_on_the_card(project: Project) -> None:
    made = built(project, many(300), canaries=8)
    canaries = canaries_of(made.card)
    assert [one.num_planted for one in canaries] == [1, 0] * 8
    answers = [one.target for one in made.examples("train") if one.metadata.get("canary")]
    assert sorted(answers) == sorted(one.target for one in canaries if one.is_planted)
    secrets = [one.secret for one in canaries]
    for split in ("develop", "certify", "test"):
        text = (made.path / split_file(split)).read_text("utf-8")
        assert not any(secret in text for secret in secrets)
    controls = [one.secret for one in canaries if not one.is_planted]
    text = (made.path / "train.jsonl").read_text("utf-8")
    assert not any(secret in text for secret in controls)
    assert built(project, many(301), canaries=8).card["facts"]["canaries"] == [
        one.to_json() for one in canaries
    ]
    assert built(project, many(300), canaries=9).card["facts"]["canaries"][1:] != canaries[1:]


def test_build_dataset_without_canaries_keeps_its_id(project: Project) -> None:
    made = built(project, many(30))
    assert made.id == built(project, many(30), canaries=0).id
    assert "canaries" not in made.card["identity"]["options"]
    assert "canaries" not in made.card["facts"]


def test_build_dataset_refuses_more_canaries_than_a_tenth(project: Project) -> None:
    with pytest.raises(InputError, match="30 canaries are too many for"):
        built(project, many(100), canaries=30)


def test_export_writes_canaries_as_training_does(project: Project, tmp_path: Path) -> None:
    made = built(project, many(300), canaries=8)
    written, left_out = export_split(made, "train", tmp_path / "train.jsonl")
    assert (written, left_out) == (made.counts["train"], 0)
