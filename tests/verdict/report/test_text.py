"""The report: what a reader finds in it."""

from __future__ import annotations

import dataclasses

from ownweights.verdict import Slice, Subject, report_text
from ownweights.verdict.certificate import ByRequest
from tests.verdict.test_certificate import CALIBRATED, COMPARED, refusal, verdict

SUBJECT = Subject(
    "tickets", "s1", "d1", "json", confidence={"kind": "sum_logprob"}, teachers=("rented-1",)
)


def test_report_of_a_certificate() -> None:
    text = report_text(verdict(subject=SUBJECT))
    blocks = text.split("\n\n")
    assert blocks[0].startswith("The student may answer 83% of requests drawn one from each")
    for part in (
        "Evidence at the deployed threshold, from 1000 independent certify units:",
        "coverage      83.0%  (95 % interval 80.5% to 85.3%)",
        "threshold     -5.3 on sum_logprob",
        "harm, all     31 of 1000 in all  (limit 5.0%, p = 0.001)",
        "harm, served  30 of 830 served  (limit 10.0%, p = 0.002)",
        "error budget  delta 0.05, attempt 2 spends 0.0076",
        "not judged    2 (count as harm), failed 1 (count as harm), ineligible 3",
        "k = v     2 of 10     20.0%  (2.0% to 50.0%)",
        "This assumes:\n  - a",
        "Void when:\n  - e",
        "Teacher: model rented-1; drift baseline: none taken, `own drift run`",
        "Each answer had 60 s, and has on a route; a later one is a loss.",
        "verdict abc  student s1  dataset d1  check json  teachers rented-1",
    ):
        assert part in text
    assert "Reasons" not in text


def test_report_counts_by_request_and_warns() -> None:
    text = report_text(verdict(subject=SUBJECT, by_request=ByRequest(2000, 800, 200.0, 10)))
    assert (
        "by request    as often as each came (measured, not certified): 40.0% of 2,000 served, harm"
        " 10.5% of all and 25.0% of those served"
    ) in text
    first, second = text.split("\n\n")[1].splitlines()
    assert first.startswith(
        "Warning: counted as often as each request came, 10.5 % of all requests"
    )
    assert "25 % of those served came to harm, more than 10 %" in second
    mild = report_text(verdict(subject=SUBJECT, by_request=ByRequest(2000, 800, 20.0, 10)))
    assert "Warning" not in mild and "by request" in mild
    by = ByRequest(2000, 800, 20.0, 10, 0.31, 0.487)
    assert "40.0% of 2,000 served (95 % interval 31.0% to 48.7%), harm" in report_text(
        verdict(subject=SUBJECT, by_request=by)
    )
    assert "by request" not in report_text(verdict(subject=SUBJECT))


def test_report_names_the_teachers_fingerprint() -> None:
    state = {"baseline": "main/2", "models": ["big-1"], "fingerprints": ["fp_a", "fp_b"]}
    known = dataclasses.replace(SUBJECT, teacher_state=state)
    line = "model big-1; system fingerprints fp_a, fp_b; drift baseline main/2"
    assert f"Teacher: {line}\n" in report_text(verdict(subject=known))
    silent = dataclasses.replace(
        SUBJECT, teacher_state={**state, "fingerprints": [], "incident": "main/9"}
    )
    told = "no system fingerprint; drift baseline main/2, open incident main/9"
    assert told in report_text(verdict(subject=silent))


def test_report_of_a_refusal() -> None:
    text = report_text(refusal(subject=SUBJECT))
    assert text.startswith("Not replaceable yet")
    assert "Reasons:\n  - too few" in text
    assert "What it would take: about 100, or about 1,250 fresh requests to be split." in text
    assert "at the first threshold" in text
    assert "coverage  " not in text


def test_report_says_which_score_and_what_it_promises() -> None:
    other = {**COMPARED, "kind": "agreement", "area": 0.03, "calls": 9, "wait_tokens": 33.6,
             "is_chosen": False}  # fmt: skip
    subject = dataclasses.replace(SUBJECT, compared=(COMPARED, other))
    text = report_text(verdict(subject=subject, calibration=(CALIBRATED,)))
    for part in (
        "gate           0.0200  calls 1, tokens before the first is sent 1  (chosen)",
        "agreement      0.0300  calls 9, tokens before the first is sent 34\n",
        "Harm by score (predicted by develop, seen on certify; 95 % intervals):",
        "-1.5 to -0.25      predicted  12.5%  seen 4 of 40   10.0%  (3.0% to 24.0%)",
    ):
        assert part in text
    bare = report_text(verdict(subject=SUBJECT))
    assert "Harm by score" not in bare
    assert "Scores compared" not in bare


def test_report_names_failing_slices_alone_and_few_of_them() -> None:
    slices = tuple(Slice("intent", f"i{n}", 20, 5, 0.1, 0.4, is_failing=n < 12) for n in range(15))
    text = report_text(verdict(subject=SUBJECT, slices=slices))
    assert text.count("intent = ") == 8
    assert "i12" not in text
    assert "intent" not in report_text(verdict(subject=SUBJECT, slices=slices[12:]))
