"""`own key`: made once, listed without its secret, changed, revoked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.app import run
from ownweights.core.project import Project
from ownweights.gateway.keys import KeyStore, Spent
from ownweights.gateway.keys.key import day_of, hash_of


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def key(project: Project, *words: str) -> int:
    return run(["--project", str(project.root), "key", *words])


def listed(project: Project, capsys: pytest.CaptureFixture[str], *words: str) -> list[Any]:
    capsys.readouterr()
    assert key(project, "list", "--json", *words) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_key_add_prints_the_secret_once(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert key(project, "add", "alice") == 0
    told = capsys.readouterr()
    secret = told.out.strip()
    assert secret.startswith("own-") and secret not in told.err
    (row,) = listed(project, capsys)
    assert secret not in str(row) and hash_of(secret) not in str(row)
    assert (row["name"], row["state"], row["workloads"]) == ("alice", "live", "all")
    with KeyStore.open(project) as store:
        assert [one.hash for one in store.every()] == [hash_of(secret)]


def test_key_add_takes_every_limit(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--workload", "tickets", "--workload", "mail", "--budget-usd", "2.5", "--per", "day",
             "--requests-per-min", "60", "--tokens-per-min", "9000", "--no-record",
             "--no-students", "--expires", "2999-01-01", "--json"]  # fmt: skip
    assert key(project, "add", "alice", *words) == 0
    made = json.loads(capsys.readouterr().out)
    assert set(made) == {"name", "id", "key"}
    (row,) = listed(project, capsys)
    wanted = {
        "id": made["id"], "workloads": "tickets, mail", "budget_usd": 2.5, "per": "day",
        "requests_per_min": 60, "tokens_per_min": 9000, "recorded": False, "students": False,
        "expires": "2999-01-01", "spent_usd": 0.0,
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted


def test_key_set_changes_what_is_given(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    key(project, "add", "alice", "--budget-usd", "5", "--workload", "tickets", "--no-record")
    (before,) = listed(project, capsys)
    assert key(project, "set", "alice", "--per", "total", "--requests-per-min", "7") == 0
    (row,) = listed(project, capsys)
    assert row == {**before, "per": "total", "requests_per_min": 7}
    words = ["--budget-usd", "none", "--requests-per-min", "none", "--any-workload", "--record"]
    assert key(project, "set", before["id"], *words) == 0
    (row,) = listed(project, capsys)
    assert row == {**before, "per": "total", "budget_usd": None, "workloads": "all",
                   "recorded": True}  # fmt: skip


def test_key_revoke_ends_it_and_frees_its_name(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    key(project, "add", "alice")
    assert key(project, "revoke", "alice") == 0
    assert listed(project, capsys) == []
    assert key(project, "add", "alice") == 0
    assert [row["state"] for row in listed(project, capsys, "--all")] == ["revoked", "live"]
    assert key(project, "list") == 0
    assert "alice" in capsys.readouterr().out


def test_key_list_shows_the_spend_of_the_period(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    key(project, "add", "alice", "--budget-usd", "5", "--per", "day")
    today = day_of(time.time())
    with KeyStore.open(project) as store:
        (made,) = store.every()
        store.write_spend("w1", {(made.id, today): Spent(2, 1, 30, 10**9, 25 * 10**7)})
        store.write_spend("w2", {(made.id, today): Spent(1, 0, 10, 10**9)})
        store.write_spend("w1", {(made.id, "2020-01-01"): Spent(100, 0, 10, 10**9)})
    (row,) = listed(project, capsys)
    assert (row["spent_usd"], row["requests"], row["tokens"]) == (2.0, 3, 40)
    assert (row["estimated"], row["unpriced"]) == (0.125, 1)
    key(project, "set", "alice", "--per", "total")
    assert listed(project, capsys)[0]["spent_usd"] == 3.0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["add", "a/b"], "cannot name a key"),
        (["add", "a", "--workload", "a/b"], "cannot name a workload"),
        (["add", "a", "--budget-usd", "nan"], "'nan' is not a number from 0"),
        (["add", "a", "--budget-usd", "-1"], "'-1' is not a number from 0"),
        (["add", "a", "--requests-per-min", "0"], "'0' is not a number from 1"),
        (["add", "a", "--tokens-per-min", "1.5"], "'1.5' is not a number from 1"),
        (["add", "a", "--tokens-per-min", "9" * 30], "is not a number from 1"),
        (["add", "a", "--expires", "tomorrow"], "'tomorrow' is not a day"),
        (["add", "a", "--expires", "2020-01-01"], "has begun already"),
        (["add", "a", "--per", "year"], "'year' is not one of"),
        (["add", "bob"], "there is a key named 'bob' already"),
        (["set", "bob"], "nothing is to be changed of bob"),
        (["set", "bob", "--workload", "w", "--any-workload"], "exclude each other"),
        (["set", "carl", "--per", "day"], "there is no key 'carl'"),
        (["revoke", "carl"], "there is no key 'carl'"),
    ],
)
def test_key_mistakes_are_told(
    project: Project, capsys: pytest.CaptureFixture[str], words: list[str], what: str
) -> None:
    key(project, "add", "bob")
    capsys.readouterr()
    assert key(project, *words) == 2
    told = capsys.readouterr()
    assert what in told.err and told.out == ""


def test_key_list_of_none_says_how_to_make_one(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert key(project, "list") == 0
    told = capsys.readouterr()
    assert told.out == "" and "own key add NAME" in told.err
