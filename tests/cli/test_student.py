"""`own student`: training, looking and asking from a shell gives what the library gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.main import main
from ownweights.cli.student import find_dataset
from ownweights.core.artefact import draft_folder, seal
from ownweights.core.project import Project
from ownweights.dataset import Dataset, build_dataset
from ownweights.student.train import train_student
from tests.disk import max_file_bytes
from tests.student.zoo import QUICK, SYSTEM, WORKLOAD, make_project, make_records
from tests.tiny import BASE_NAME

SETTINGS = f"""
[student.{WORKLOAD}]
base = "{BASE_NAME}"
rank = 4
epochs = 2.0
rows_per_step = 8
learning_rate = 0.01
"""


class Shell:
    """`own --project DIR student ...`, and what it printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        returned = main(["--project", str(self.folder), "student", *words])
        out, errors = self._capsys.readouterr()
        assert returned == code, errors
        return out, errors

    def json(self, *words: str) -> list[Any]:
        out, _ = self(*words, "--json")
        return [json.loads(line) for line in out.split("\n")[:-1]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    project, dataset = make_project(tmp_path_factory.mktemp("home"))
    project.settings_path.write_text(SETTINGS, "utf-8")
    return project, dataset


@pytest.fixture
def own(home: tuple[Project, Dataset], capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home[0].root, capsys)


def card(project: Project, student_id: str) -> dict[str, Any]:
    return json.loads((project.kind_dir("student") / student_id / "card.json").read_text("utf-8"))


def test_student_train_matches_the_library(home: tuple[Project, Dataset], own: Shell) -> None:
    project, dataset = home
    out, errors = own("train", "--workload", WORKLOAD)
    made = train_student(dataset, project, options=QUICK)
    assert out == f"{made.id}\n"
    assert "train zoo: " in errors and "tokens/s" in errors and "loss " in errors
    assert "epochs = 2.0: as asked" in errors


def test_student_train_prints_json(home: tuple[Project, Dataset], own: Shell) -> None:
    (shown,) = own.json("train", "--workload", WORKLOAD)
    made = card(home[0], shown["id"])
    assert shown.pop("path") == str(home[0].kind_dir("student") / shown["id"])
    assert shown == {"id": made["id"], **made["facts"]}
    assert shown["trainable_params"] > 0 and shown["tokens_per_s"] > 0


def test_student_train_prefers_flags_to_settings(home: tuple[Project, Dataset], own: Shell) -> None:
    (shown,) = own.json(
        "train", "--workload", WORKLOAD, "--rank", "2", "--epochs", "0.5", "--seed", "7",
        "--learning-rate", "0.02", "--method", "lora", "--base", BASE_NAME,
    )  # fmt: skip
    identity = card(home[0], shown["id"])["identity"]
    assert identity["lora"]["rank"] == 2
    assert (identity["epochs"], identity["seed"], identity["learning_rate"]) == (0.5, 7, 0.02)


def test_student_train_takes_the_newest_dataset_or_the_one_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, first = make_project(tmp_path)
    project.settings_path.write_text(SETTINGS.replace("2.0", "0.2"), "utf-8")
    second = build_dataset(make_records(40), project, workload=WORKLOAD)
    path = second.path / "card.json"
    newer = {**second.card, "created_at": "2999-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(newer), "utf-8")
    shell = Shell(tmp_path, capsys)
    for words, wanted in (([], second), (["--dataset", first.id[:6]], first)):
        (shown,) = shell.json("train", "--workload", WORKLOAD, *words)
        assert card(project, shown["id"])["parents"]["dataset"] == wanted.id


def test_student_train_needs_a_dataset(own: Shell) -> None:
    _, errors = own("train", "--workload", "nothing", code=1)
    assert errors == (
        "error: there is no dataset of workload 'nothing'\n"
        "hint: own dataset build --workload nothing\n"
    )
    _, errors = own("train", "--workload", WORKLOAD, "--dataset", "ffff", code=1)
    assert "dataset 'ffff' does not exist" in errors


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--base", "nobody"], 1, "base 'nobody' was not found"),
        (["--rank", "0"], 2, "expected between 1 and 1024, got 0"),
        (["--epochs", "0"], 2, "expected between 0 and 1000 (exclusive), got 0.0"),
        (["--method", "magic"], 2, "'magic' is not one of 'lora', 'qlora', 'full'"),
        (["--rank", "many"], 2, "'many' is not a valid integer"),
    ],
)
def test_student_train_refuses(own: Shell, words: list[str], code: int, message: str) -> None:
    out, errors = own("train", "--workload", WORKLOAD, *words, code=code)
    assert out == ""
    assert message in errors


def test_student_train_needs_a_workload(own: Shell) -> None:
    _, errors = own("train", code=2)
    assert "Missing option '--workload'" in errors


def test_student_show_lists_all(home: tuple[Project, Dataset], own: Shell) -> None:
    project, dataset = home
    made = train_student(dataset, project, options=replace(QUICK, seed=3))
    rows = {row["id"]: row for row in own.json("show")}
    assert rows[made.id] == {
        "id": made.id, "dataset": dataset.id, "base": BASE_NAME, "method": "lora", "epochs": 2,
        "develop_loss": made.card["facts"]["develop_loss"],
        "tokens_per_s": made.card["facts"]["tokens_per_s"], "erased": None,
    }  # fmt: skip
    table, _ = own("show")
    assert table.split("\n")[0].split() == list(rows[made.id])
    assert made.id in table


def test_student_show_prints_a_card(home: tuple[Project, Dataset], own: Shell) -> None:
    project, dataset = home
    made = train_student(dataset, project, options=replace(QUICK, seed=3))
    for words in (["show", made.id], ["show", made.id[:8], "--json"]):
        out, _ = own(*words)
        assert json.loads(out) == card(project, made.id)


def test_student_show_finds_a_changed_file(home: tuple[Project, Dataset], own: Shell) -> None:
    project, dataset = home
    made = train_student(dataset, project, options=replace(QUICK, seed=4))
    path = made.path / "adapter_config.json"
    path.write_text(path.read_text("utf-8") + " ", "utf-8")
    _, errors = own("show", made.id, code=1)
    assert "file 'adapter_config.json' is not what its card says" in errors


def test_student_show_of_nothing_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path, capsys)
    assert shell("show") == ("", "no student yet: `own student train`\n")
    assert shell.json("show") == []
    _, errors = shell("show", "abc", code=1)
    assert "student 'abc' does not exist\nhint: there are: none" in errors


def test_student_chat_prints_one_answer(home: tuple[Project, Dataset], own: Shell) -> None:
    project, dataset = home
    made = train_student(dataset, project, options=replace(QUICK, epochs=25, rank=8))
    words = ("chat", made.id[:8], "a fox by the mill", "--system", SYSTEM)  # pruned as in training
    assert own(*words) == ("fox\n", "")


def test_student_chat_names_a_student_that_is_not_there(own: Shell) -> None:
    _, errors = own("chat", "abc", "hello", code=1)
    assert "student 'abc' does not exist" in errors


def test_student_show_and_train_pass_over_what_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, dataset = make_project(tmp_path)
    folder = project.kind_dir("student")
    with draft_folder(folder) as draft:
        odd = seal(draft, "student", identity={})
    for kind in ("student", "dataset"):
        (project.kind_dir(kind) / "stray").mkdir(parents=True)
    shell = Shell(tmp_path, capsys)
    out, errors = shell("show")
    assert odd.id in out and "warning: student stray is passed over" in errors
    assert [row["id"] for row in shell.json("show")] == [odd.id, "stray"]
    _, errors = shell("show", "stray", code=1)
    assert "has no card.json\nhint: make the artefact again" in errors
    assert find_dataset(project, WORKLOAD, None) == dataset
    assert "warning: dataset stray is passed over" in capsys.readouterr().err


def test_student_train_on_a_full_disk_says_so_and_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = make_project(tmp_path)
    project.settings_path.write_text(SETTINGS.replace("2.0", "0.2"), "utf-8")
    shell = Shell(tmp_path, capsys)
    with max_file_bytes(3000):
        _, errors = shell("train", "--workload", WORKLOAD, code=1)
    assert "adapter_model.safetensors could not be written: " in errors
    assert "hint: make room" in errors and "Traceback" not in errors
    assert list(project.kind_dir("student").iterdir()) == []
    out, _ = shell("train", "--workload", WORKLOAD)
    assert card(project, out.strip())["id"] == out.strip()
