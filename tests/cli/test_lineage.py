"""`own lineage`: where an artefact came from and what that allows, from a shell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ownweights.cli.main import main
from ownweights.core.project import Project
from tests.lineage.chain import Chain, make_chain

Own = Callable[..., tuple[str, str]]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def chain(project: Project) -> Chain:
    return make_chain(project, ["gpt-4o"])


@pytest.fixture
def own(project: Project, capsys: pytest.CaptureFixture[str]) -> Own:
    def call(*words: object, code: int = 0) -> tuple[str, str]:
        returned = main(["--project", str(project.root), "lineage", *map(str, words)])
        out, errors = capsys.readouterr()
        assert returned == code, errors
        return out, errors

    return call


def test_lineage_show_draws_the_tree(own: Own, chain: Chain) -> None:
    out, _ = own("show", chain.student.id[:8])
    lines = out.split("\n")
    assert lines[0].startswith(f"student {chain.student.id}  20")
    assert lines[1].startswith(f"  dataset {chain.dataset.id}  20")
    assert lines[2] == (
        "    answered by gpt-4o: 1 (day unknown), OpenAI Services Agreement: denied,"
        " overridden by name"
    )
    assert lines[3] == "  base 0123456789ab  outside  (seedling)"


def test_lineage_show_tells_what_is_gone(own: Own, chain: Chain) -> None:
    shutil.rmtree(chain.dataset.path)
    out, _ = own("show", chain.student.id)
    gone = f"dataset {chain.dataset.id}  missing  (dataset '{chain.dataset.id}' does not exist)"
    assert gone in out


def test_lineage_show_prints_json(own: Own, chain: Chain) -> None:
    told = json.loads(own("show", chain.route, "--json")[0])
    assert (told["kind"], told["id"]) == ("route", chain.route)
    assert [parent["kind"] for parent in told["parents"]] == ["verdict", "student"]


def test_lineage_show_refuses_an_unknown_id(own: Own, chain: Chain) -> None:
    _, errors = own("show", "nope", code=1)
    assert "error: there is no artefact 'nope'" in errors
    assert "hint: `own lineage check` goes through all there are" in errors


def test_lineage_check_of_an_empty_project(own: Own) -> None:
    assert own("check") == ("", "0 artefacts, nothing found\n")


def test_lineage_check_lists_conditions(own: Own, chain: Chain) -> None:
    out, errors = own("check")
    assert out.split("\n")[1].split()[:3] == ["condition", "dataset", chain.dataset.id]
    assert errors == ""


def test_lineage_check_refuses_a_conflict(own: Own, chain: Chain) -> None:
    out, errors = own("check", chain.route, "--purpose", "distribution", "--json", code=4)
    (found,) = [json.loads(line) for line in out.split("\n")[:-1]]
    assert (found["severity"], found["id"]) == ("conflict", chain.dataset.id)
    assert errors == "refused: the lineage forbids distribution use\n"


def test_lineage_check_fails_on_damage_before_all_else(own: Own, chain: Chain) -> None:
    (chain.student.path / "data.txt").unlink()
    out, _ = own("check", "--purpose", "distribution", code=1)
    assert out.split("\n")[1].split()[0] == "damage"


def test_lineage_terms_tells_the_facts(own: Own) -> None:
    out, _ = own("terms", "mistral-large-2402", "--day", "2024-02-20")
    told = dict(line.split(None, 1) for line in out.split("\n")[1:-1])
    assert told["trains"] == "denied"
    assert told["as_of"] == "2024-02-26"
    assert "obligations" not in told


def test_lineage_terms_prints_json(own: Own) -> None:
    told = json.loads(own("terms", "gemma-2-9b-it", "--json")[0])
    assert (told["id"], told["outputs"], len(told["obligations"])) == ("gemma", "derivative", 3)


def test_lineage_terms_lists_duties_in_one_line(own: Own) -> None:
    out, _ = own("terms", "llama-3.1-8b")
    assert "show Built with Llama; pass on the agreement" in out


def test_lineage_terms_refuses_what_is_no_day(own: Own) -> None:
    _, errors = own("terms", "gpt-4o", "--day", "last week", code=2)
    assert errors == "error: --day 'last week' is not a day\nhint: write it as 2024-02-27\n"
