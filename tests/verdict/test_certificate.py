"""Certificates as values: the claim's limits, the words, the JSON form."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ownweights.core.errors import ArtefactError, SettingsError
from ownweights.verdict import Claim, Examples, Slice, Subject, Verdict
from ownweights.verdict.certificate import ByRequest, Calibrated, request_warnings, sentence

COMPARED = {"kind": "gate", "area": 0.02, "calls": 1, "wait_tokens": 1.0, "is_chosen": True}
CALIBRATED = Calibrated(-1.5, -0.25, 40, 0.125, 4.0, low=0.03, high=0.24)


def verdict(**changed: Any) -> Verdict:
    known: dict[str, Any] = {
        "issued": True, "claim": Claim(), "subject": Subject("tickets", "s1", "d1", "json",
        teachers=("rented-1",), period=(1.0, 2.0)), "attempt": 2, "delta_spent": 0.0076,
        "n": 1000, "n_served": 830, "harms": 30.0, "losses": 1, "unjudged": 2, "ineligible": 3,
        "num_used": 4, "p_all": 0.001, "p_served": 0.002, "threshold": -5.3, "coverage_frac": 0.83,
        "coverage_low": 0.805, "coverage_high": 0.853, "method": "m", "assumptions": ("a",),
        "expires": ("e",), "slices": (Slice("k", "v", 10, 2, 0.02, 0.5, True),), "id": "abc",
    }  # fmt: skip
    return Verdict(**{**known, **changed})


def refusal(**changed: Any) -> Verdict:
    known: dict[str, Any] = {
        "issued": False, "threshold": None, "coverage_frac": 0.0, "coverage_low": 0.0,
        "coverage_high": 0.0, "reasons": ("too few",), "needed": Examples(100, 1250, "about 100"),
    }  # fmt: skip
    return verdict(**{**known, **changed})


TUNED = verdict(
    subject=Subject("tickets", compared=(COMPARED,)), calibration=(CALIBRATED, CALIBRATED)
)


COUNTED = verdict(by_request=ByRequest(2000, 800, 81.0, 3))


@pytest.mark.parametrize("known", [verdict(), refusal(), refusal(needed=None), TUNED, COUNTED])
def test_verdict_survives_json(known: Verdict) -> None:
    text = json.dumps(known.to_dict(), allow_nan=False)
    assert Verdict.from_dict(json.loads(text), verdict_id="abc") == known


def test_verdict_from_before_calibration_is_still_read() -> None:
    data = json.loads(json.dumps(verdict().to_dict()))
    del data["calibration"], data["subject"]["compared"], data["by_request"]
    assert Verdict.from_dict(data, verdict_id="abc") == verdict()


def test_verdict_json_says_the_claim_in_words() -> None:
    found = verdict().to_dict()
    assert found["claim_in_words"] == sentence(verdict())
    assert "id" not in found


def test_sentence_of_a_certificate() -> None:
    assert sentence(verdict()) == (
        "The student may answer 83% of requests drawn one from each distinct prompt: at most 5 % of"
        " all these, and at most 10 % of those the student answers itself, get a worse answer than"
        " the teacher would have given, with 95 % confidence."
    )


def test_sentence_of_a_refusal() -> None:
    claim = Claim(alpha=0.025, beta=0.033)
    assert sentence(refusal(claim=claim)) == (
        "Not replaceable yet: not proved that at most 2.5 % of all requests drawn one from each"
        " distinct prompt, and at most 3.3 % of those the student answers itself, get a worse"
        " answer than the teacher would have given."
    )


@pytest.mark.parametrize(
    ("split_by", "unit"),
    [
        ("prompt", "distinct prompt"),
        ("session", "session"),
        ("session-or-prompt", "session or, where there is none, distinct prompt"),
        ("meta:task_id", "distinct task_id"),
    ],
)
def test_sentence_names_what_units_are(split_by: str, unit: str) -> None:
    subject = Subject("tickets", split_by=split_by)
    for known in (verdict(subject=subject), refusal(subject=subject)):
        assert f"requests drawn one from each {unit}" in sentence(known)


@pytest.mark.parametrize(
    ("harms", "losses", "above"),
    [
        (80.0, 0, []),  # 4 % of all, 10 % of those served: neither is above
        (81.0, 0, ["10.1 % of those served came to harm, more than 10 %"]),
        (20.0, 81, ["5.05 % of all requests came to harm, more than 5 %"]),
        (200.0, 0, ["10 % of all requests", "25 % of those served"]),
    ],
)
def test_request_warnings_name_each_limit_that_is_passed(
    harms: float, losses: int, above: list[str]
) -> None:
    by_request = ByRequest(2000, 800, harms, losses)
    found = request_warnings(verdict(by_request=by_request))
    assert len(found) == len(above)
    assert all(part in line for part, line in zip(above, found, strict=True))
    assert request_warnings(refusal(by_request=by_request)) == []


def test_by_request_of_nothing_is_no_share() -> None:
    nothing = ByRequest(0, 0, 0.0, 0)
    assert (nothing.coverage_frac, nothing.harm_all_frac, nothing.harm_served_frac) == (0, 0, 0)
    assert request_warnings(verdict(by_request=None)) == []


@pytest.mark.parametrize("name", ["alpha", "beta", "delta", "min_coverage_frac"])
@pytest.mark.parametrize("value", [0.0, -0.1, 5.0, float("nan"), 5e-324, 0.9e-9])
def test_claim_refuses_what_is_no_share(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"verdict {name} is .* between 0 and 1") as info:
        Claim(**{name: value})
    assert info.value.hint == "for 5 % write 0.05"


def test_claim_of_all_requests_may_be_wanted() -> None:
    assert Claim(delta=1e-9).delta == 1e-9
    assert Claim(min_coverage_frac=1.0).min_coverage_frac == 1.0
    with pytest.raises(SettingsError):
        Claim(alpha=1.0)


@pytest.mark.parametrize("missing", ["claim", "subject", "p_all", "slices", "reasons"])
def test_verdict_from_dict_refuses_a_part(missing: str) -> None:
    data = verdict().to_dict()
    del data[missing]
    with pytest.raises(ArtefactError, match="not a certificate or refusal"):
        Verdict.from_dict(data)


def test_verdict_from_dict_refuses_an_unknown_claim() -> None:
    data = verdict().to_dict()
    data["claim"]["gamma"] = 1
    with pytest.raises(ArtefactError, match="gamma"):
        Verdict.from_dict(data)


def test_slice_harm_frac() -> None:
    known = Slice("k", "v", 8, 2, 0.0, 1.0, False)
    assert known.harm_frac == 0.25
    assert dataclasses.replace(known, n=0, harms=0).harm_frac == 0.0
