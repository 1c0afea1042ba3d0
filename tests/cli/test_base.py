"""`own base`: pre-training from a shell, in several goes, and looking at what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project
from ownweights.student.base import prepare_text, pretrain, read_recipe
from ownweights.student.publish import publish_base
from ownweights.weights.base import EMBEDDED_DIR, base_id
from tests.student.text import make_corpus, write_recipe
from tests.tiny import BASE_NAME, make_base


class Shell:
    """`own --project DIR base ...`, and what it printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.project, self._capsys = Project(folder / "project"), capsys
        self.corpus, self.traffic = make_corpus(folder)
        self.recipe = write_recipe(folder)

    def __call__(self, *words: object, code: int = 0) -> tuple[str, str]:
        returned = main(["--project", str(self.project.root), "base", *map(str, words)])
        out, errors = self._capsys.readouterr()
        assert returned == code, errors
        return out, errors

    def train(self, *words: object, code: int = 0) -> tuple[str, str]:
        folders = ("--corpus", self.corpus, "--traffic", self.traffic)
        return self("train", self.recipe, *folders, *words, code=code)

    def show(self, *words: str) -> dict[str, Any]:
        return json.loads(self("show", *words)[0])


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_base_train_in_several_goes_matches_the_library(own: Shell, tmp_path: Path) -> None:
    work = own.project.kind_dir("base") / ".run"
    out, errors = own.train("--max-steps", 4)
    assert out == ""
    assert f"stopped; the same command goes on from {work}" in errors
    assert json.loads((work / "progress.json").read_text("utf-8"))["step"] == 4
    assert own.train("--max-steps", 3)[0] == ""
    assert json.loads((work / "progress.json").read_text("utf-8"))["step"] == 7
    out, errors = own.train()
    assert "pre-train: 10/10  loss " in errors

    recipe, alone = read_recipe(own.recipe), tmp_path / "alone"
    prepare_text(recipe, own.corpus, own.traffic, alone)
    list(pretrain(recipe, alone))
    made = publish_base(recipe, alone, Project(tmp_path / "other"), corpus=own.corpus)
    assert out == f"{made.id}\n"


def test_base_train_prints_json_and_publishes_again_what_is_done(own: Shell) -> None:
    out, errors = own.train("--json")
    shown = json.loads(out)
    card = json.loads((Path(shown["path"]) / "card.json").read_text("utf-8"))
    assert shown == {"id": card["id"], "path": shown["path"], **card["facts"]}
    assert "sentences left out" in errors
    assert json.loads(own.train("--json")[0])["id"] == shown["id"]


def test_base_train_keeps_its_work_where_it_is_told(own: Shell, tmp_path: Path) -> None:
    work = tmp_path / "elsewhere"
    own.train("--work", work, "--max-steps", 1)
    assert (work / "checkpoint.pt").is_file()
    assert not own.project.kind_dir("base").exists()


def test_base_train_refuses(own: Shell, tmp_path: Path) -> None:
    given = ("--corpus", own.corpus, "--traffic", own.traffic)
    _, errors = own("train", tmp_path / "none.toml", *given, code=2)
    assert f"error: there is no recipe {tmp_path / 'none.toml'}" in errors
    write_recipe(tmp_path, {"train": {"setps": 1}})
    _, errors = own.train(code=2)
    assert "[train]: unknown key 'setps'\nhint: did you mean 'steps'?" in errors
    _, errors = own("train", own.recipe, "--corpus", tmp_path / "no", *given[2:], code=2)
    assert "does not exist" in errors
    _, errors = own("train", own.recipe, code=2)
    assert "Missing option '--corpus'" in errors


def test_base_train_refuses_a_corpus_without_books(own: Shell, tmp_path: Path) -> None:
    _, errors = own("train", own.recipe, "--corpus", tmp_path, "--traffic", own.traffic, code=1)
    assert f"{tmp_path}: holds no books/*.txt.gz" in errors


def test_base_show_prints_a_base_of_the_project(own: Shell) -> None:
    base = own.train()[0].strip()
    shown = own.show(base)
    folder = own.project.kind_dir("base") / base
    assert (shown["name"], shown["id"]) == (base, base_id(folder))
    assert shown["path"] == str(folder.resolve())
    assert shown["config"]["vocab_size"] == 300
    assert shown["card"]["id"] == base


def test_base_show_prints_any_checkpoint(own: Shell) -> None:
    folder = make_base(own.project.root / BASE_NAME)
    shown = own.show(BASE_NAME)
    assert shown["id"] == base_id(folder)
    assert "card" not in shown


def test_base_show_prints_the_embedded_one_by_default(own: Shell) -> None:
    if not (EMBEDDED_DIR / "config.json").is_file():
        pytest.skip("this tree holds no embedded base yet")
    shown = own.show()
    assert (shown["name"], shown["path"]) == ("seedling", str(EMBEDDED_DIR))


def test_base_show_names_what_is_not_there(own: Shell) -> None:
    _, errors = own("show", "nobody", code=1)
    assert "error: base 'nobody' was not found" in errors
    assert "hint: use 'seedling', a base of this project" in errors


@pytest.mark.parametrize("text", ["[]", "{", "[" * 200_000, "\udcff"])
@pytest.mark.parametrize("file", ["config.json", "card.json"])
def test_base_show_of_a_damaged_file_says_so(own: Shell, file: str, text: str) -> None:
    folder = own.project.root / BASE_NAME
    make_base(folder)
    (folder / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    _, errors = own("show", str(folder), code=1)
    assert errors.startswith(f"error: {folder / file}")
