"""Claim D where people answered each request several times: is another person one of them?"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import noise_floor
from bench.result import is_result
from ownweights.core.project import Project
from ownweights.dataset import Dataset, DatasetOptions, build_dataset
from ownweights.verdict import Claim, Verdict, run_verdict
from ownweights.verdict.checks import check_named
from ownweights.verdict.ledger import MemoryLedger
from ownweights.verdict.store import verify_verdict
from ownweights.verdict.trial import RunOptions
from tests.fakes import ScriptedTeacher
from tests.verdict.describe import Study, study

FRACTIONS = (0.01, 0.07, 0.91, 0.01)  # nothing is trained here: nearly all of it may judge
MARGIN = 0.1


@pytest.fixture(scope="module")
def real(test_data: Path) -> Study:
    return study(test_data)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("describe"))


@pytest.fixture(scope="module")
def wide(real: Study, project: Project) -> Dataset:
    options = DatasetOptions(fractions=FRACTIONS)
    return build_dataset(real.records, project, workload="describe", options=options)


def verdict(
    dataset: Dataset, project: Project, student: ScriptedTeacher, real: Study, *, name: str = "s"
) -> Verdict:
    claim = Claim(paired=("C", "D"), margin=MARGIN)
    options = RunOptions(ledger=MemoryLedger())
    return run_verdict(
        dataset, student, project, name, claim=claim, check=real.check, options=options
    )


def test_another_person_is_within_the_noise_of_people(
    real: Study, wide: Dataset, project: Project
) -> None:
    """No certificate: too often it says what nobody said. But so does any other person."""
    found = verdict(wide, project, real.person(), real)
    noise = found.paired[1]
    assert not found.issued
    assert 420 < noise.n <= 481
    assert (noise.conclusion, noise.among) == ("not_worse", "answered")
    assert noise.teacher_frac is not None
    assert noise.student_frac is not None
    assert 0.2 < noise.teacher_frac < 0.4
    assert abs(noise.mean) < 0.03
    assert noise.low < 0 < noise.high
    assert verify_verdict(project.kind_dir("verdict"), found.id).is_sound


def test_a_stranger_is_refused(real: Study, wide: Dataset, project: Project) -> None:
    found = verdict(wide, project, real.stranger(), real, name="stranger")
    quality, noise = found.paired
    assert (quality.conclusion, noise.conclusion) == ("worse", "worse")
    assert (noise.student_frac or 0) > 0.9


def test_certify_alone_holds_too_few_units_for_a_narrow_margin(
    real: Study, project: Project
) -> None:
    dataset = build_dataset(real.records, project, workload="describe")
    noise = verdict(dataset, project, real.person(), real).paired[1]
    assert noise.n == 44
    assert noise.conclusion == "undecided"
    assert (noise.units or 0) > 44
    stranger = verdict(dataset, project, real.stranger(), real, name="stranger").paired[1]
    assert stranger.conclusion == "worse"


def test_claim_d_by_the_very_words_says_nothing(
    real: Study, wide: Dataset, project: Project
) -> None:
    """Two people hardly ever choose the same words: any student at all would pass."""
    claim = Claim(paired=("D",), margin=MARGIN)
    options = RunOptions(ledger=MemoryLedger())
    found = run_verdict(
        wide, real.stranger(), project, "words", claim=claim, check=check_named("exact"),
        options=options,
    )  # fmt: skip
    (noise,) = found.paired
    assert (noise.teacher_frac or 0) > 0.95
    assert noise.conclusion == "says_nothing"


def test_bench_of_the_noise_floor(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that the bench prints: people proved, strangers refused, the border kept."""
    monkeypatch.setenv("OWN_TEST_DATA", str(test_data))
    monkeypatch.setattr(noise_floor, "QUICK_TRIALS", 40)
    lines = {line["case"]: line for line in noise_floor.cases(is_quick=True, seed=1)}
    assert all(is_result(line) for line in lines.values())
    assert len(lines) == 15
    assert lines["person m=0.1"]["coverage_frac"] > 0.9
    assert lines["one pair m=0.1"]["coverage_frac"] < lines["person m=0.1"]["coverage_frac"]
    assert lines["stranger m=0.1"]["coverage_frac"] == 1.0
    assert lines["very words m=0.1"]["coverage_frac"] == 1.0
    assert lines["border naive m=0.1"]["violation_frac"] > lines["border m=0.1"]["violation_frac"]
    assert lines["border m=0.1"]["violation_frac"] <= noise_floor.DELTA + 0.1
    assert lines["certify alone m=0.1"]["coverage_frac"] < 0.5


def test_bench_of_the_noise_floor_needs_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWN_TEST_DATA", raising=False)
    with pytest.raises(SystemExit, match="set OWN_TEST_DATA"):
        next(noise_floor.cases(is_quick=True, seed=1))


def test_bench_draws_a_border_student_that_is_on_the_border(test_data: Path) -> None:
    units = noise_floor.read_units(test_data)
    share = 0.1 / -noise_floor.strange_mean(units)
    drawn = noise_floor.draw(units, 100, 3, strange=share)
    gaps = drawn.again - drawn.student
    assert abs(gaps.mean() + 0.1) < 4 * gaps.std() / gaps.size**0.5
