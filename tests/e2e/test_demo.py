"""The loop as a person runs it: `own demo` in a folder of its own, ended by its JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEYS = [
    "records", "train", "develop", "certify", "test", "student", "exact_frac", "certificate",
    "test_harm_frac", "test_selective_harm_frac", "served", "wall_s",
]  # fmt: skip
CERTIFICATE_KEYS = [
    "issued", "alpha", "beta", "delta", "delta_spent", "n", "threshold", "coverage_frac", "reasons",
]  # fmt: skip


def own(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `own` as a program; torch gets one thread, because tests share the machine."""
    return subprocess.run(
        [sys.executable, "-m", "ownweights.cli", *words],
        cwd=folder, capture_output=True, text=True, timeout=580, check=False,
        env={**os.environ, **variables},
    )  # fmt: skip


def demo(folder: Path, *words: str, **variables: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON object and talk of a demo."""
    done = own("demo", "--no-serve", "--json", *words, folder=folder, **variables)
    assert done.returncode in (0, 4), done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], Path]:
    """A small demo on generated requests, run once."""
    folder = tmp_path_factory.mktemp("generated")
    code, result, _ = demo(
        folder, "--records", "1300", "--dir", "here", OWN_STUDENT_PARCELS_EPOCHS="3"
    )
    return code, result, folder / "here"


def test_demo_ends_with_its_json_object(generated: tuple[int, dict[str, Any], Path]) -> None:
    code, result, _ = generated
    assert list(result) == KEYS
    assert list(result["certificate"]) == CERTIFICATE_KEYS
    assert list(result["student"]) == ["base", "trainable_params", "seconds", "tokens_per_s"]
    assert result["certificate"]["issued"] is (code == 0)


def test_demo_sends_the_whole_test_split(generated: tuple[int, dict[str, Any], Path]) -> None:
    _, result, _ = generated
    assert sum(result["served"].values()) == result["test"] > 50
    assert result["records"] == 1300


def test_demo_certificate_and_route_agree(generated: tuple[int, dict[str, Any], Path]) -> None:
    code, result, folder = generated
    certificate = result["certificate"]
    routes = list((folder / ".own" / "route").glob("*.toml"))
    if code == 0:
        assert len(routes) == 1
        assert f"threshold = {certificate['threshold']!r}" in routes[0].read_text()
        assert certificate["coverage_frac"] >= 0.1 and result["served"]["student"] > 0
    else:
        assert routes == [] and certificate["reasons"]
        assert (certificate["threshold"], certificate["coverage_frac"]) == (None, 0.0)
        assert result["served"]["student"] == 0


def test_demo_teacher_answers_do_no_harm(generated: tuple[int, dict[str, Any], Path]) -> None:
    _, result, _ = generated
    student_harms = result["test_selective_harm_frac"] * result["served"]["student"]
    assert result["test_harm_frac"] * result["test"] == pytest.approx(student_harms, abs=0.5)


def test_demo_records_what_the_gateway_served(
    generated: tuple[int, dict[str, Any], Path],
) -> None:
    _, result, folder = generated
    stats = own("--project", str(folder), "traffic", "stats", "--json", folder=folder)
    rows = [json.loads(line) for line in stats.stdout.splitlines()]
    assert sum(row["records"] for row in rows) == result["records"] + result["test"]


def test_demo_writes_only_to_its_own_folder(
    generated: tuple[int, dict[str, Any], Path],
) -> None:
    _, _, folder = generated
    assert [path.name for path in folder.parent.iterdir()] == ["here"]
    assert json.loads((folder / "own-demo.json").read_text())["finished"] is True


def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    done = own("demo", "--no-serve", "--dir", "mine", folder=tmp_path)
    assert done.returncode == 2
    assert "mine exists and is not a demo's folder" in done.stderr
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


def test_demo_refuses_a_workload_that_is_not_there(tmp_path: Path) -> None:
    done = own("demo", "--no-serve", "--records", "50", "--workload", "x", folder=tmp_path)
    assert done.returncode == 2
    assert "has no workload 'x'" in done.stderr and "hint: it has parcels" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"text": "not a chat"}\n' * 3, "line 1: has neither 'request' nor 'messages'"),
        ("", "it is empty"),
        (" \n\n", "it is empty"),
        ("ask,answer\nhi,hello\n", "line 1: not JSON: "),
        ('{"messages": [{"role": "user"', "line 1: not JSON: "),
    ],
)
def test_demo_refuses_a_file_without_chats(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "notes.jsonl").write_text(text)
    done = own("demo", "--no-serve", "--traffic", "notes.jsonl", folder=tmp_path)
    assert done.returncode == 1
    assert f"notes.jsonl: this is not chat traffic: {says}" in done.stderr
    assert "hint: a line is {id, request, response, metadata} or" in done.stderr


def test_demo_refuses_chats_that_cannot_be_used(tmp_path: Path) -> None:
    line = '{"request": {"messages": [{"role": "user", "content": "hi"}]}}\n'
    (tmp_path / "notes.jsonl").write_text(line)
    done = own("demo", "--no-serve", "--traffic", "notes.jsonl", folder=tmp_path)
    assert done.returncode == 2
    assert "holds no request that can be used: {'no_answer': 1}" in done.stderr


def test_demo_with_too_few_units_is_refused_untrained(tmp_path: Path) -> None:
    code, result, _ = demo(tmp_path, "--records", "200")
    assert code == 4
    (reason,) = result["certificate"]["reasons"]
    assert reason.startswith("too few independent units: certify holds ")
    assert result["student"]["seconds"] == 0.0


def test_demo_on_airline_is_refused_for_too_few_units(tmp_path: Path, test_data: Path) -> None:
    path = test_data / "traffic" / "airline-gpt4o.jsonl.gz"
    code, result, _ = demo(tmp_path, "--traffic", str(path))
    assert code == 4 and result["records"] == 2166
    terms, units = result["certificate"]["reasons"]
    assert "gpt-4o" in terms and "--allow-teacher" in terms
    assert units.startswith("too few independent units: certify holds ")


def test_demo_on_sql_is_refused_by_the_teachers_terms(tmp_path: Path, test_data: Path) -> None:
    path = test_data / "traffic" / "sql-gpt4.jsonl.gz"
    code, result, _ = demo(tmp_path, "--traffic", str(path))
    assert code == 4 and result["certificate"]["issued"] is False
    assert any("gpt-4" in reason for reason in result["certificate"]["reasons"])
