"""Where a base is, and which one it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ownweights.core.errors import ArtefactMissing
from ownweights.core.project import Project
from ownweights.weights import base
from ownweights.weights.base import base_id, resolve_base
from tests.tiny import make_base


def test_resolve_base_finds_the_embedded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "EMBEDDED_DIR", make_base(tmp_path / "inside"))
    assert resolve_base(Project(tmp_path), "seedling") == tmp_path / "inside"


def test_resolve_base_says_when_there_is_no_embedded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "EMBEDDED_DIR", tmp_path / "nothing")
    with pytest.raises(ArtefactMissing, match="holds no embedded base") as refusal:
        resolve_base(Project(tmp_path), "seedling")
    assert "reinstall" in (refusal.value.hint or "")


def test_resolve_base_finds_one_made_in_the_project(tmp_path: Path) -> None:
    project = Project(tmp_path)
    folder = make_base(project.kind_dir("base") / "0123456789ab")
    assert resolve_base(project, "0123456789ab") == folder


def test_resolve_base_finds_a_folder_from_the_projects_root(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "models" / "tiny")
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    assert resolve_base(project, str(folder)) == folder
    assert resolve_base(project, "../models/tiny") == folder


def test_resolve_base_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ArtefactMissing, match="base 'nope' was not found: neither") as refusal:
        resolve_base(Project(tmp_path), "nope")
    assert str(tmp_path / ".own" / "base" / "nope") in refusal.value.what
    assert "'seedling'" in (refusal.value.hint or "")


def test_base_id_is_of_the_content(tmp_path: Path) -> None:
    first, second = make_base(tmp_path / "a"), make_base(tmp_path / "b")
    (second / "README.md").write_text("a card says nothing about the numbers", "utf-8")
    assert base_id(first) == base_id(second)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_base_id_changes_with_any_of_its_files(tmp_path: Path, name: str) -> None:
    folder = make_base(tmp_path)
    before = base_id(folder)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert base_id(folder) != before


def test_base_id_changes_with_an_added_template(tmp_path: Path) -> None:
    folder = make_base(tmp_path)
    before = base_id(folder)
    (folder / "chat_template.jinja").write_text("x", "utf-8")
    assert base_id(folder) != before


def test_base_needs_no_torch() -> None:
    code = "import sys, ownweights.weights.base; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
