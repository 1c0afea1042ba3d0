"""What a demo stands on: its folder, and settings that load whatever things are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownweights.cli.demo.rehearsal import MARKER, Plan, close_folder, open_folder, write_settings
from ownweights.core.errors import UsageError
from ownweights.core.project import Project
from ownweights.core.settings import load_settings


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "7", "null", "[" * 200_000])
def test_open_folder_leaves_one_with_a_damaged_note_alone(tmp_path: Path, text: str) -> None:
    plan = Plan(tmp_path / "demo")
    open_folder(plan)
    (plan.folder / MARKER).write_text(text)
    (plan.folder / "mine").write_text("kept")
    for step in (open_folder, close_folder):
        with pytest.raises(UsageError, match=f"{MARKER} is damaged") as caught:
            step(plan)
        assert "--dir" in (caught.value.hint or "")
    assert (plan.folder / "mine").read_text() == "kept"


def test_open_folder_goes_on_or_starts_anew(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "demo")
    for is_finished in (False, True):
        open_folder(plan)
        (plan.folder / "work").write_text("")
        if is_finished:
            close_folder(plan)
        open_folder(plan)
        assert (plan.folder / "work").exists() is not is_finished


@pytest.mark.parametrize("workload", ["parcels", "a.b", "1.0"])
@pytest.mark.parametrize("word", ["meta:a b", 'say "x"', "a\\b", "naïve \U0001f98a", "\x7f"])
def test_write_settings_loads_whatever_things_are_called(
    tmp_path: Path, workload: str, word: str
) -> None:
    project = Project(tmp_path)
    plan = Plan(tmp_path, seed=7, split_by=word, allow_teachers=(word, "gpt-4o"))
    write_settings(project, plan, workload, "http://127.0.0.1:1/v1")
    settings = load_settings(project, env={})
    assert settings.workload.keys() == settings.student.keys() == settings.verdict.keys()
    assert settings.student[workload].seed == 7
    found = settings.workload[workload]
    assert (found.split_by, found.allow_teachers) == (word, (word, "gpt-4o"))
