"""What the documents say of the tree, the commands and the layers is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from ownweights.cli.app import app
from ownweights.cli.commands import OPTIONS
from tests.meta.tree import PACKAGES, ROOT, kept_files

README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = sorted(
    ROOT / name for name in kept_files() if name.endswith(".md") and name != "dev/LOG.md"
)
TREE_LINE = re.compile(r"^( *)(\S+)(?:  +(.+))?$")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
COMMAND = re.compile(
    r"(?:^    |`)(?:\.venv/bin/)?own ((?:--?[a-z]\S* )*)([a-z]+)(?: ([a-z]+))?", re.M
)


def fenced(text: str, after: str) -> str:
    """The first code block after a heading."""
    return text.split(after, 1)[1].split("```", 2)[1].split("\n", 1)[1]


def drawn_paths(drawing: str) -> dict[str, str]:
    """path → note, of an indented drawing of a tree."""
    paths: dict[str, str] = {}
    above: list[str] = []
    for line in drawing.splitlines():
        if found := TREE_LINE.match(line):
            depth = len(found[1]) // 2
            above[depth:] = [found[2].rstrip("/")]
            paths["/".join(above)] = found[3] or ""
    return paths


def test_readme_tree_is_the_tree() -> None:
    drawn = drawn_paths(fenced(README.read_text("utf-8"), "## The tree"))
    kept = kept_files()
    tops = {name.split("/")[0] for name in kept}
    hidden = {top for top in tops if top.startswith(".")} - {".ci"}
    packages = {f"ownweights/{package}" for package in PACKAGES}
    assert {path for path in drawn if "/" not in path} == tops - hidden
    assert {path for path in drawn if path.startswith("ownweights/")} == packages
    assert [path for path in drawn if not (ROOT / path).exists()] == []
    assert [path for path, note in drawn.items() if not note] == []


def test_readme_brings_a_newcomer_to_an_answer_in_forty_lines() -> None:
    head = "\n".join(README.read_text("utf-8").splitlines()[:40])
    for step in ("make demo", "base_url", "x-own-served-by"):
        assert step in head


def test_layers_are_those_of_the_documents() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    assert tuple(reversed(layers)) == PACKAGES
    for document in (README, ARCHITECTURE):
        drawn = re.findall(r"^  (?:  )?([a-z]+)/  ", document.read_text("utf-8"), re.M)
        assert tuple(name for name in drawn if name in PACKAGES) == PACKAGES, document.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_document_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text("utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_document_commands_exist(path: Path) -> None:
    context = click.Context(app)
    for _, noun, verb in COMMAND.findall(path.read_text("utf-8")):
        command = app.get_command(context, noun)
        assert command is not None, f"own {noun}"
        if isinstance(command, click.Group) and verb:
            assert verb in command.commands, f"own {noun} {verb}"


def test_global_options_are_documented() -> None:
    assert [left.split()[0].rstrip(",") for left, _ in OPTIONS] == ["--project", "--version", "-h"]
