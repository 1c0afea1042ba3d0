"""`own student train --objective …`: settings, flags and what was recorded reach the trainer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ownweights.cli.plan.pairs import preference_pairs
from ownweights.cli.student import options_of
from ownweights.core.database import open_database
from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.dataset import Dataset
from ownweights.student.options import StudentOptions
from ownweights.traffic import TrafficStore
from ownweights.traffic.feedback import keep_feedback, parse_feedback
from tests.cli.test_student import SETTINGS, Shell, card
from tests.student.zoo import WORKLOAD, make_project, make_records, record_of
from tests.tiny import BASE_NAME


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    project, dataset = make_project(tmp_path_factory.mktemp("home"))
    project.settings_path.write_text(SETTINGS.replace("2.0", "0.5"), "utf-8")
    return project, dataset


@pytest.fixture
def own(home: tuple[Project, Dataset], capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home[0].root, capsys)


def identity_of(home: tuple[Project, Dataset], own: Shell, *words: str) -> dict[str, object]:
    (shown,) = own.json("train", "--workload", WORKLOAD, *words)
    return card(home[0], shown["id"])["identity"]


def test_every_setting_reaches_the_options(tmp_path: Path) -> None:
    """training.md c.57: what own.toml says of a student is what the trainer is told."""
    project = Project(tmp_path)
    text = (
        'head = true\nobjective = "distil"\nteacher = "big"\ndivergence = 0.5\ntemperature = 2.0\n'
        'ce_frac = 0.25\nstart = "abc"\noptimiser = "adamw"\nlora_alpha = 7.0\nseed = 3\n'
    )
    project.settings_path.write_text(f"[student.zoo]\n{text}", "utf-8")
    options = options_of(load_settings(project).student_of("zoo"))
    assert options == StudentOptions(
        head=True, objective="distil", teacher="big", divergence=0.5, temperature=2.0,
        ce_frac=0.25, start="abc", optimiser="adamw", lora_alpha=7.0, seed=3,
    )  # fmt: skip
    text = 'objective = "dpo"\ndpo_beta = 0.2\npairs = "p.jsonl"\n'
    project.settings_path.write_text(f"[student.zoo]\n{text}", "utf-8")
    options = options_of(load_settings(project).student_of("zoo"))
    assert options == StudentOptions(objective="dpo", dpo_beta=0.2, pairs="p.jsonl")
    text = 'objective = "on-policy"\nteacher = "big"\nmax_answer_tokens = 9\n'
    project.settings_path.write_text(f"[student.zoo]\n{text}", "utf-8")
    options = options_of(load_settings(project).student_of("zoo"))
    assert options == StudentOptions(objective="on-policy", teacher="big", max_answer_tokens=9)
    project.settings_path.write_text('[student.zoo]\nobjective = "text"\ntext = "b.txt"\n', "utf-8")
    options = options_of(load_settings(project).student_of("zoo"))
    assert options == StudentOptions(objective="text", text="b.txt")


def test_train_with_a_head_by_adamw(home: tuple[Project, Dataset], own: Shell) -> None:
    identity = identity_of(home, own, "--head", "--optimiser", "adamw")
    assert identity["optimiser"] == "adamw"
    assert "lm_head" in str(identity["lora"])


def test_train_prints_what_was_derived(own: Shell) -> None:
    _, errors = own("train", "--workload", WORKLOAD)
    assert "epochs = 0.5: as asked" in errors
    assert "rank: 4: " in errors
    assert "rows_per_step: 8 of " in errors


def test_train_from_text(home: tuple[Project, Dataset], own: Shell) -> None:
    (home[0].root / "book.txt").write_text("a fox and an owl. " * 30, "utf-8")
    identity = identity_of(home, own, "--objective", "text", "--text", "book.txt")
    assert identity["objective"] == "text"


def test_train_from_a_teacher(home: tuple[Project, Dataset], own: Shell) -> None:
    words = ("--objective", "distil", "--teacher", BASE_NAME, "--divergence", "0.5")
    identity = identity_of(home, own, *words, "--ce-frac", "0.5", "--temperature", "2")
    assert (identity["divergence"], identity["ce_frac"], identity["temperature"]) == (0.5, 0.5, 2)
    words = ("--objective", "on-policy", "--teacher", BASE_NAME, "--max-answer-tokens", "4")
    assert identity_of(home, own, *words)["max_answer_tokens"] == 4


def test_train_from_preferences(home: tuple[Project, Dataset], own: Shell) -> None:
    project, dataset = home
    example = dataset.examples("train")[0]
    question = example.request["messages"][-1]["content"]
    record = replace(record_of(question, "a newt", ""), role="student", source_id=None)
    with TrafficStore.open(project) as store, open_database(project.database) as database:
        store.add([record])
        keep_feedback(database, parse_feedback({"request_id": record.id, "value": False}))
    other = dataset.examples("train")[1].request["messages"]
    line = {"messages": other, "chosen": "a bat", "rejected": "a rat"}
    (project.root / "pairs.jsonl").write_text(json.dumps(line), "utf-8")
    words = ("--objective", "dpo", "--pairs", "pairs.jsonl", "--dpo-beta", "0.3")
    (shown,) = own.json("train", "--workload", WORKLOAD, *words)
    assert shown["pairs"] == {"denied": 1, "file": 1}
    assert card(project, shown["id"])["identity"]["dpo_beta"] == 0.3
    options = StudentOptions(objective="dpo")
    assert [one.source for one in preference_pairs(project, dataset, options)] == ["denied"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--objective", "kto"], 2, "'kto' is not one of 'sft', 'dpo'"),
        (["--objective", "distil"], 2, "the objective 'distil' needs a teacher"),
        (["--teacher", "x"], 2, "teacher is of no use to the objective 'sft'"),
        (["--objective", "distil", "--teacher", "nobody"], 1, "neither a student nor a base"),
        (["--objective", "dpo"], 1, "there is no pair of answers to learn from"),
        (["--objective", "logprobs"], 1, "was recorded with its alternatives"),
        (["--start", "ffff"], 1, "student 'ffff' does not exist"),
        (["--verdict", "ffff"], 2, "which only the objective dpo learns from"),
        (["--objective", "text", "--text", "no.txt"], 1, "no.txt: cannot be read"),
    ],
)
def test_train_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    project, _ = make_project(tmp_path, make_records())
    project.settings_path.write_text(SETTINGS, "utf-8")
    _, errors = Shell(tmp_path, capsys)("train", "--workload", WORKLOAD, *words, code=code)
    assert message in errors


def test_train_from_rivals(home: tuple[Project, Dataset], own: Shell) -> None:
    """A bare base of random weights answers nothing right: every answer is worse."""
    (shown,) = own.json(
        "train", "--workload", WORKLOAD, "--objective", "dpo", "--rivals", "6", "--epochs", "1"
    )
    assert shown["pairs"]["verdict"] == 6
    assert shown["develop_pairs"] >= 1
    _, errors = own("train", "--workload", WORKLOAD, "--rivals", "6", code=2)
    assert "which only the objective dpo learns from" in errors
