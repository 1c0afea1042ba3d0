"""`own scan`: what it prints, where prices come from, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.main import main
from ownweights.cli.scan import plan_of
from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.dataset import build_dataset
from ownweights.traffic import TrafficStore
from ownweights.verdict.scan import Prices
from tests.dataset.records import answer, body, many, phrase, record

DAY_S = 86_400.0
TEACHER = """
[teacher.main]
base_url = "http://127.0.0.1:1/v1"
usd_per_mtok_in = 2.0
usd_per_mtok_out = 8.0
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    with TrafficStore.open(made) as store:
        for i in range(60):
            response = {**answer(f"r{i % 30}", model="big"), "usage": usage}
            store.add([
                record(phrase(i % 30), response=response, role="teacher", at=DAY_S * (10 + i / 10))
            ])  # fmt: skip
        store.add(many(5, workload="small"))
    return made


def scan(project: Project, *words: object, code: int = 0) -> None:
    assert main(["--project", str(project.root), "scan", *map(str, words)]) == code


def as_json(
    project: Project, capsys: pytest.CaptureFixture[str], *words: object
) -> list[dict[str, Any]]:
    scan(project, "--json", *words)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_scan_prints_a_line_of_json_a_workload(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    big, small = as_json(project, capsys)
    assert (big["workload"], big["records"], small["workload"]) == ("w", 60, "small")
    assert big["period"]["per_day"] == pytest.approx(60 / 5.9)
    assert big["repeats"]["distinct"] == 30
    assert big["agreement"]["units"] == big["agreement"]["agree"] == 30
    assert big["cost"] is None
    assert small["period"]["per_day"] is None


def test_scan_certify_is_what_dataset_build_finds(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = as_json(project, capsys, "--workload", "w")
    with TrafficStore.open(project) as store:
        built = build_dataset(store.records("w"), project, workload="w")
    assert found["units"]["certify"] == built.card["facts"]["units"]["certify"]


def test_scan_is_for_reading(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    scan(project, "--usd-per-mtok-in", 2, "--usd-per-mtok-out", 8)
    said = capsys.readouterr()
    for part in (
        "w: 60 records over 5.9 days, 10 a day, answered by big",
        "30 distinct (50.0% exact repeats), 30 questions, 0 of them near another",
        "30 independent, by prompt (no record has a session); certify would hold",
        "agrees with itself in 30 of 30 units asked twice: 100.0% (88.4% to 100.0%), by check",
        "60,000 read, 6,000 written (as recorded)",
        "USD 0.17 for these records, USD 0.85 a month",
        "a certificate could save USD 0.17 of it at most",
        "100.0% are asked in a form that a student can answer",
        "a certificate covers no more than these; extrapolated, as if requests asked once varied"
        " like those asked twice: it could cover 100.0% and save USD 0.17 at most",
        "never enough",
        "small: 5 records over",
        "no request was answered twice: how often it agrees with itself is unknown",
        "estimated, 4.00 characters to a token",
    ):
        assert part in said.out
    assert "scan: 65/65" in said.err
    assert "hint: --usd-per-mtok-in" not in said.err


def test_scan_without_a_price_says_how_to_give_one(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(project)
    said = capsys.readouterr()
    assert "cost          unknown: no price is given" in said.out
    assert "hint: --usd-per-mtok-in and --usd-per-mtok-out say what this costs" in said.err


def test_scan_takes_the_teachers_prices_but_flags_first(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.settings_path.write_text(TEACHER)
    big, _ = as_json(project, capsys)
    assert big["cost"]["usd"] == pytest.approx(60 * (2 * 1000 + 8 * 100) / 1e6)
    words = ("--usd-per-mtok-in", 0, "--usd-per-mtok-out", 1)
    big, _ = as_json(project, capsys, *words)
    assert big["cost"]["usd"] == pytest.approx(60 * 100 / 1e6)


def test_scan_tells_what_stays_with_the_teacher(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    with TrafficStore.open(project) as store:
        store.add([record(phrase(i), request=body(phrase(i), **tools)) for i in range(40, 60)])
        store.add([record("mine", role="student"), record("x", response=None, status="error")])
    scan(project, "--workload", "w")
    said = capsys.readouterr().out
    assert (
        "75.0% are asked in a form that a student can answer; the others: ineligible:tools 20"
        in said
    )
    assert "1 answered by a student, 1 failed" in said


@pytest.mark.parametrize("flag", ["--usd-per-mtok-in", "--usd-per-mtok-out"])
def test_scan_refuses_half_a_price(
    project: Project, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    scan(project, flag, 1, code=2)
    assert "a price needs both --usd-per-mtok-in and --usd-per-mtok-out" in capsys.readouterr().err
    project.settings_path.write_text(TEACHER.replace("usd_per_mtok_out = 8.0", ""))
    scan(project, code=2)
    assert "teacher.main has one of usd_per_mtok_in and usd_per_mtok_out" in capsys.readouterr().err


def test_scan_of_nothing_says_so(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(project, "--workload", "letters", code=1)
    assert "there is no record of workload 'letters'" in capsys.readouterr().err
    scan(Project(tmp_path / "empty"), code=1)
    assert "there is no traffic in" in capsys.readouterr().err


def test_scan_refuses_a_negative_price_and_unknown_words(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(project, "--usd-per-mtok-in", -1, "--usd-per-mtok-out", 1, code=2)
    scan(project, "--usd-per-mtok-in", 1, "--usd-per-mtok-out", 1e308, code=2)
    assert "is not in the range 0<=x<=1000000" in capsys.readouterr().err
    scan(project, "--workload", "", code=2)
    assert "cannot name a workload" in capsys.readouterr().err
    scan(project, "--price", 1, code=2)
    assert "--price" in capsys.readouterr().err


def test_plan_is_what_the_settings_say(project: Project) -> None:
    project.settings_path.write_text(
        TEACHER + '[workload.w]\nsplit_by = "session"\n[verdict.w]\nalpha = 0.2\nclaims = ["D"]\n'
    )
    plan = plan_of(load_settings(project), "w")
    assert (plan.dataset.split_by, plan.claim.alpha, plan.claim.paired) == ("session", 0.2, ("D",))
    assert plan.prices == Prices(2.0, 8.0)
    two = TEACHER + TEACHER.replace("main", "other")
    project.settings_path.write_text(two)
    assert plan_of(load_settings(project), "w").prices is None  # nobody says which of the two


def test_scan_names_the_list_that_a_price_is_from(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where own.toml says nothing, the maker's list holds at the maker's address."""
    listed = '[teacher.main]\nbase_url = "https://api.openai.com/v1"\nmodel = "gpt-4o"\n'
    project.settings_path.write_text(listed)
    scan(project)
    assert "(list price of api.openai.com, 20" in capsys.readouterr().out
    scan(project, "--usd-per-mtok-in", "1", "--usd-per-mtok-out", "1")
    assert "list price" not in capsys.readouterr().out
