"""Claims C and D from asking to artefact: booked, kept, shown, and recomputed by anyone."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ownweights.core.chat import ChatRequest, Completion
from ownweights.core.completer import Completer
from ownweights.core.errors import ArtefactError, CompleterTimeout
from ownweights.core.project import Project
from ownweights.verdict import Claim, RunOptions, Verdict, report_text, run_verdict, verify_verdict
from ownweights.verdict.judge import JudgeCheck
from ownweights.verdict.judged import FAILED, Judged, read_judged, write_judged
from ownweights.verdict.ledger import MemoryLedger
from ownweights.verdict.report.chart import HEIGHT, WIDTH, Axes, Series, draw_chart
from ownweights.verdict.report.page import report_page
from ownweights.verdict.report.text import paired_sentence
from ownweights.verdict.store import load_rows
from tests.fakes import FlakyTeacher, ScriptedTeacher, last_user_text
from tests.verdict import worlds
from tests.verdict.judge import judges
from tests.verdict.judge.judges import judge_who
from tests.verdict.test_store import forge

BOTH = Claim(alpha=0.3, beta=0.4, paired=("C", "D"), margin=0.1)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def twice(num_develop: int = 150, num_certify: int = 500, *, noise: float = 0.15) -> Any:
    """Each question answered three times, by a teacher that says something else now and then."""
    rng = np.random.default_rng(6)

    def examples(split: str, num: int) -> list[worlds.FakeExample]:
        found: list[worlds.FakeExample] = []
        for number in range(num):
            one = worlds.example(number, split, f"answer {number}")
            said = [one.target if rng.random() >= noise else f"{one.target}, or {rng.random():.6f}"
                    for _ in range(3)]  # fmt: skip
            found += [
                dataclasses.replace(
                    one, id=f"{one.id}-{i}", target=text, references=tuple(dict.fromkeys(said))
                )
                for i, text in enumerate(said)
            ]
        return found

    return worlds.FakeDataset({"develop": examples("develop", num_develop),
                               "certify": examples("certify", num_certify)})  # fmt: skip


def draws(noise: float = 0.15, seed: int = 8) -> ScriptedTeacher:
    """A student that varies as the teacher does."""

    def says(request: ChatRequest) -> Completion:
        text = last_user_text(request)
        rng = np.random.default_rng([seed, *text.encode()])
        told = f"answer {text.split()[-1]}"
        return worlds.answer(told if rng.random() >= noise else f"{told}, or so", rng.random())

    return ScriptedTeacher(says)


def run(project: Project, student: Completer, claim: Claim = BOTH, **options: Any) -> Verdict:
    return run_verdict(
        twice(), student, project, "student1", claim=claim, options=RunOptions(**options)
    )


def test_run_decides_both_claims(project: Project) -> None:
    found = run(project, draws())
    assert found.issued
    quality, noise = found.paired
    assert (quality.name, noise.name) == ("C", "D")
    assert noise.conclusion == "not_worse"
    assert noise.teacher_frac == pytest.approx(1 - 0.85**2, abs=0.05)
    assert noise.student_frac == pytest.approx(1 - 0.85**2, abs=0.05)
    assert 0 < noise.n <= 500
    assert quality.n == found.n_served == noise.n
    rows, _ = load_rows(project, found.id)
    paired = [row for row in rows if row.pair is not None]
    assert len({row.unit for row in paired}) == len(paired) == 500
    assert {row.split for row in paired} == {"certify"}
    assert verify_verdict(project.kind_dir("verdict"), found.id).is_sound


def test_run_refuses_a_student_beyond_the_noise(project: Project) -> None:
    found = run(project, draws(noise=0.5), dataclasses.replace(BOTH, paired=("D",)))
    (noise,) = found.paired
    assert noise.conclusion == "worse"


def test_run_without_claims_keeps_no_pairs(project: Project) -> None:
    found = run(project, draws(), dataclasses.replace(BOTH, paired=()))
    assert found.paired == ()
    rows, _ = load_rows(project, found.id)
    assert [row for row in rows if row.pair or row.difference is not None] == []


def test_run_leaves_failed_requests_out_of_the_claims(project: Project) -> None:
    faults: list[Any] = [None] * 450 + [CompleterTimeout("slow")] * 60
    found = run(project, FlakyTeacher(draws(), faults), concurrency=1)
    rows, _ = load_rows(project, found.id)
    failed = [row for row in rows if row.status == FAILED]
    assert len(failed) == 60
    assert [row.pair for row in failed] == [None] * 60


def test_run_with_other_claims_is_another_attempt(project: Project) -> None:
    """The claims are fixed before certify is read, as the limits are."""
    ledger = MemoryLedger()
    plain = run(project, draws(), dataclasses.replace(BOTH, paired=()), ledger=ledger)
    again = run(project, draws(), dataclasses.replace(BOTH, paired=()), ledger=ledger)
    claimed = run(project, draws(), ledger=ledger)
    wider = run(project, draws(), dataclasses.replace(BOTH, margin=0.2), ledger=ledger)
    assert plain == again
    assert (plain.attempt, claimed.attempt, claimed.num_used) == (1, 2, 500)
    assert wider.num_used == 500
    assert [one.conclusion for one in claimed.paired] == ["undecided", "undecided"]


@pytest.mark.parametrize(("place", "key", "value"), [(0, "p_value", 1e-9), (1, "mean", 0.5),
                                                     (1, "conclusion", "worse")])  # fmt: skip
def test_verify_finds_a_changed_claim(project: Project, place: int, key: str, value: Any) -> None:
    found = run(project, draws())

    def change(data: dict[str, Any]) -> None:
        data["paired"][place][key] = value

    forged = forge(project, found, change)
    wrong = verify_verdict(project.kind_dir("verdict"), forged).differences
    assert any(line.startswith("paired: the file says") for line in wrong)


# a judge


def world(num_develop: int = 120, num_certify: int = 300) -> Any:
    """Questions of the judges' world, each answered twice by the teacher, once in ten wrongly."""

    def example(i: int, split: str, turn: int) -> worlds.FakeExample:
        prompt = f"{split} question {i}: which number?"
        told = 5 if i % 10 == turn + 6 else 7 * i + 1000
        answer = f"The number that was asked for is {told}."
        messages = [{"role": "user", "content": prompt}]
        return worlds.FakeExample(f"{split}-{i}-{turn}", prompt, {"messages": messages}, messages,
                                  answer, (answer,))  # fmt: skip

    sizes = {"develop": num_develop, "certify": num_certify}
    return worlds.FakeDataset({
        split: [example(i, split, turn) for i in range(num) for turn in (0, 1)]
        for split, num in sizes.items()
    })  # fmt: skip


def right_but(wrong_every: int) -> ScriptedTeacher:
    def says(request: ChatRequest) -> Completion:
        number = int(re.findall(r"question (\d+)", last_user_text(request))[-1])
        told = 5 if number % wrong_every == 3 else 7 * number + 1000
        return worlds.answer(f"It is {told}.", 0.1 + number % 9 / 100)

    return ScriptedTeacher(says)


def test_judge_says_by_how_much_and_wins_make_up_for_losses(project: Project) -> None:
    """Wrong in a tenth where the teacher is right, right in a tenth where the teacher is wrong."""
    claim = dataclasses.replace(BOTH, margin=0.1)
    check = JudgeCheck(judge_who(judges.careful))
    found = run_verdict(world(), right_but(10), project, "s", claim=claim, check=check)
    quality, noise = found.paired
    assert (found.subject.check, quality.n) == ("judge", found.n_served)
    assert quality.better > 0
    assert quality.worse == found.harms
    assert quality.mean == pytest.approx((quality.better - quality.worse) / quality.n)
    assert quality.conclusion == "not_worse"
    assert quality.tango is not None
    assert noise.n == quality.n
    rows, _ = load_rows(project, found.id)
    assert {row.difference for row in rows if row.split == "certify"} == {-1.0, 0.0, 1.0}
    assert {row.pair for row in rows if row.pair} <= {
        (a, b) for a in (0.0, 1.0) for b in (0.0, 1.0)
    }
    assert verify_verdict(project.kind_dir("verdict"), found.id).is_sound


def test_judge_says_nothing_where_it_was_undecided(project: Project) -> None:
    def waver(request: str, first: str, second: str) -> str:
        plain = "I hope" not in first + second and "Ignore" not in first + second
        both_long = first.startswith("It is") or second.startswith("It is")
        return judges.first_lover(request, first, second) if (
            "question 7:" in request and "certify" in request and plain and both_long
        ) else judges.careful(request, first, second)  # fmt: skip

    check = JudgeCheck(judge_who(waver))
    found = run_verdict(world(), right_but(10**6), project, "s", claim=BOTH, check=check)
    rows, _ = load_rows(project, found.id)
    (row,) = [row for row in rows if row.id == "certify-7-1"]
    assert (row.harm, row.difference, row.counted_difference) == (None, None, -1.0)


# what is kept


def test_judged_keeps_differences_and_pairs(tmp_path: Path) -> None:
    known = [
        Judged("a", "u1", "certify", difference=-1.0, pair=(0.25, 1.0)),
        Judged("b", "u2", "certify", difference=0.0),
        Judged("c", "u3", "develop"),
    ]
    write_judged(tmp_path / "j.jsonl", known)
    assert read_judged(tmp_path / "j.jsonl") == known
    lines = [json.loads(text) for text in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert [sorted({"difference", "pair"} & line.keys()) for line in lines] == [
        ["difference", "pair"], ["difference"], [],
    ]  # fmt: skip


@pytest.mark.parametrize("pair", ["[1]", "7", '["x", 1]', "null"])
def test_judged_refuses_what_is_no_pair(tmp_path: Path, pair: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(f'{{"id":"a","unit":"u","split":"certify","score":0,"pair":{pair}}}\n')
    with pytest.raises(ArtefactError, match=r"j\.jsonl:1 is not a judged request"):
        read_judged(path)


# what is shown


def quality_reason(found: Verdict) -> str:
    """Claim C by this check is harsher than D: any answer but the recorded one is worse."""
    assert found.paired[0].conclusion == "worse"
    return "the opposite is proved: the student is worse by more than the margin"


def test_report_tells_each_claim(project: Project) -> None:
    found = run(project, draws())
    text = report_text(found)
    for one in found.paired:
        assert f"  {one.name}  {paired_sentence(one)}" in text
        assert f"better {one.better}, worse {one.worse}" in text
    noise = found.paired[1]
    assert f"the teacher's second {noise.teacher_frac:.1%}, the student's" in text
    assert quality_reason(found) in text
    assert "Claimed besides" not in report_text(dataclasses.replace(found, paired=()))


def test_report_says_what_an_undecided_claim_would_take(project: Project) -> None:
    found = run(project, draws(), dataclasses.replace(BOTH, margin=0.02, paired=("D",)))
    (noise,) = found.paired
    assert noise.conclusion == "undecided"
    text = report_text(found)
    assert "2 points more often than a second answer of the teacher does: not proved" in text
    if noise.units is not None:
        assert f"about {noise.units:,} units like these would prove it" in text


@pytest.mark.parametrize("noise", [0.15, 0.5], ids=["proved", "refused"])
def test_page_draws_the_sequence_and_the_margin(project: Project, noise: float) -> None:
    found = run(project, draws(noise))
    rows, _ = load_rows(project, found.id)
    page = report_page(found, rows)
    charts = re.findall(r"<svg.*?</svg>", page, re.S)
    ours = [chart for chart in charts if "Claim " in chart]
    assert len(ours) == 2
    for chart, one in zip(ours, found.paired, strict=True):
        assert f"Claim {one.name}, as evidence gathered" in chart
        assert "<title>margin</title>" in chart
        assert "<title>bounds that hold at every look</title>" in chart
        sentence = paired_sentence(one)
        assert sentence[0].upper() + sentence[1:].replace("'", "&#39;") in page


def test_page_of_a_claim_without_units_draws_nothing(project: Project) -> None:
    data = worlds.dataset(50, 80)
    claim = dataclasses.replace(BOTH, paired=("D",))
    found = run_verdict(data, worlds.student(data), project, "s", claim=claim)
    page = report_page(found, load_rows(project, found.id)[0])
    assert "No request of certify that the teacher answered twice is in this slice" in page
    assert "Claim D, as evidence gathered" not in page


def test_chart_places_negative_values_inside_the_frame() -> None:
    axes = Axes("x", "y", 10.0, 0.5, -0.5)
    low, middle, high = (axes.place(0.0, y)[1] for y in (-0.5, 0.0, 0.5))
    assert 0 < high < middle < low < HEIGHT
    assert middle == pytest.approx((low + high) / 2)
    chart = draw_chart(axes, [Series("s", "line", [(0.0, -9.0), (99.0, 9.0)])], title="t")
    found = re.search(r'<polyline class="line" points="([^"]*)"', chart)
    assert found is not None
    for place in found[1].split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= WIDTH and high <= y <= low
