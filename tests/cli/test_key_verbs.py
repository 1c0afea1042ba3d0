"""`own key` over every mix of limits: what is listed is what gateways obey, and no secret stays."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.cli.app import run
from ownweights.core.project import Project
from ownweights.gateway.keys import KeyRing, KeyStore, Limits
from ownweights.gateway.keys.key import hash_of

FAR = "2999-01-01"
FAR_S = datetime(2999, 1, 1, tzinfo=UTC).timestamp()
# words on the command line, what the table of keys says then, what the limits are then
CHANGES: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
    "workloads": (["--workload", "a", "--workload", "b"], {"workloads": "a, b"},
                  {"workloads": ("a", "b")}),
    "budget": (["--budget-usd", "2.5"], {"budget_usd": 2.5}, {"budget_usd": 2.5}),
    "nothing to spend": (["--budget-usd", "0"], {"budget_usd": 0.0}, {"budget_usd": 0.0}),
    "per": (["--per", "total"], {"per": "total"}, {"budget_per": "total"}),
    "requests": (["--requests-per-min", "1"], {"requests_per_min": 1}, {"requests_per_min": 1}),
    "tokens": (["--tokens-per-min", "2147483647"], {"tokens_per_min": 2**31 - 1},
               {"tokens_per_min": 2**31 - 1}),
    "record": (["--no-record"], {"recorded": False}, {"is_recorded": False}),
    "students": (["--no-students"], {"students": False}, {"may_ask_students": False}),
    "expires": (["--expires", FAR], {"expires": FAR}, {"expires_at": FAR_S}),
}  # fmt: skip
BACK = {
    "workloads": ["--any-workload"], "budget": ["--budget-usd", "none"],
    "nothing to spend": ["--budget-usd", "none"], "per": ["--per", "month"],
    "requests": ["--requests-per-min", "none"], "tokens": ["--tokens-per-min", "none"],
    "record": ["--record"], "students": ["--students"], "expires": ["--expires", "none"],
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "state": "live", "workloads": "all", "spent_usd": 0.0, "budget_usd": None, "per": "month",
    "requests": 0, "tokens": 0, "unpriced": 0, "requests_per_min": None,
    "tokens_per_min": None, "recorded": True, "students": True, "expires": None,
}  # fmt: skip
SAME = ("budget", "nothing to spend")  # one option
PAIRS = [pair for pair in itertools.combinations(CHANGES, 2) if pair != SAME]


class Keys:
    """`own --project DIR key ...`, and what it printed."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        self.project = project
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        self._capsys.readouterr()
        returned = run(["--project", str(self.project.root), "key", *words])
        told = self._capsys.readouterr()
        assert returned == code, told.err
        return told.out, told.err

    def add(self, name: str, *words: str) -> str:
        return self("add", name, *words)[0].strip()

    def listed(self, *words: str) -> dict[str, dict[str, Any]]:
        lines = self("list", "--json", *words)[0].splitlines()
        return {row["name"]: row for row in map(json.loads, lines)}

    def limits(self, name: str) -> Limits:
        with KeyStore.open(self.project) as store:
            found = store.find(name)
        assert found is not None
        return found.limits


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    return Keys(Project(tmp_path), capsys)


@pytest.fixture
def ring(keys: Keys) -> Iterator[KeyRing]:
    """The keys as a running gateway knows them."""
    with KeyStore.open(keys.project):
        pass
    ring = KeyRing(keys.project)
    ring.start()
    yield ring
    ring.close()


def chosen(names: tuple[str, ...]) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    words, row, limits = [], {}, {}
    for name in names:
        words += CHANGES[name][0]
        row |= CHANGES[name][1]
        limits |= CHANGES[name][2]
    return words, row, limits


def test_key_pairs_of_limits_are_added_set_and_taken_back(keys: Keys) -> None:
    for number, pair in enumerate(PAIRS):
        words, row, limits = chosen(pair)
        made, later = f"made-{number}", f"later-{number}"
        keys.add(made, *words)
        keys.add(later)
        keys("set", later, *words)
        assert keys.limits(made) == keys.limits(later) == Limits(**limits), pair
        listed = keys.listed()
        for name in (made, later):
            found = listed[name]
            assert {key: found[key] for key in PLAIN} == {**PLAIN, **row}, pair
        back = list(dict.fromkeys(tuple(BACK[name]) for name in pair))
        keys("set", made, *itertools.chain.from_iterable(back))
        assert keys.limits(made) == Limits(), pair


def test_key_set_of_the_same_again_says_that_nothing_changes(keys: Keys) -> None:
    for name, (words, _, _) in CHANGES.items():
        called = name.replace(" ", "-")
        keys.add(called, *words)
        _, errors = keys("set", called, *words, code=2)
        assert f"nothing is to be changed of {called}" in errors
        assert "hint: own key set --help" in errors


def test_key_secrets_are_nowhere_in_the_project(keys: Keys) -> None:
    secrets = [keys.add("alice"), keys.add("bob", "--budget-usd", "1")]
    secrets.append(json.loads(keys("add", "carl", "--json")[0])["key"])
    keys("set", "alice", "--per", "day")
    keys("revoke", "bob")
    assert len(set(secrets)) == 3
    for words in (["list"], ["list", "--all"], ["list", "--json", "--all"]):
        told = "".join(keys(*words))
        assert not [one for one in secrets if one in told or hash_of(one) in told]
    files = [path for path in keys.project.root.rglob("*") if path.is_file()]
    data = b"".join(path.read_bytes() for path in files)
    assert files and b"alice" in data
    assert not [one for one in secrets if one.encode() in data or one[4:].encode() in data]
    assert all(hash_of(one).encode() in data for one in secrets)


def test_key_list_is_what_a_gateway_obeys(keys: Keys, ring: KeyRing) -> None:
    secrets = {
        name.replace(" ", "-"): keys.add(name.replace(" ", "-"), *words)
        for name, (words, _, _) in CHANGES.items()
    }
    keys("set", "budget", "--requests-per-min", "9")
    assert ring.look()
    rows = keys.listed()
    assert rows.keys() == secrets.keys()
    for name, secret in secrets.items():
        held, row = ring.find(secret), rows[name]
        assert held is not None
        assert (held.id, held.state(0.0)) == (row["id"], row["state"])
        limits = held.limits
        assert row["workloads"] == (", ".join(limits.workloads) or "all")
        assert row["expires"] == (None if limits.expires_at is None else FAR)
        assert (
            limits.budget_usd, limits.budget_per, limits.requests_per_min, limits.tokens_per_min,
            limits.is_recorded, limits.may_ask_students,
        ) == tuple(
            row[word] for word in ("budget_usd", "per", "requests_per_min", "tokens_per_min",
                                   "recorded", "students")
        )  # fmt: skip


def test_key_revoke_reaches_a_running_gateway(keys: Keys, ring: KeyRing) -> None:
    old = keys.add("alice")
    keys("revoke", "alice")
    new = keys.add("alice", "--no-record")
    assert ring.look()
    states = [(held.state(0.0), held.limits.is_recorded)
              for held in map(ring.find, (old, new)) if held is not None]  # fmt: skip
    assert states == [("revoked", True), ("live", False)]
    assert ring.find(old[:-1]) is None
    assert ring.find("") is None


def test_key_revoked_is_changed_and_revoked_no_more(keys: Keys) -> None:
    keys.add("alice")
    known = keys.listed()["alice"]["id"]
    keys("revoke", known)
    for name in ("alice", known):
        assert "hint: there are: none" in keys("set", name, "--per", "day", code=2)[1]
        assert f"there is no key {name!r}" in keys("revoke", name, code=2)[1]
    keys.add("bob")
    assert "hint: there are: bob" in keys("revoke", "alice", code=2)[1]
    assert keys.listed("--all")["alice"]["state"] == "revoked"
    assert set(keys.listed()) == {"bob"}


def test_key_takes_no_beginning_of_a_name_or_id(keys: Keys) -> None:
    keys.add("team-a")
    keys.add("team-b")
    for part in ("team-", "team", keys.listed()["team-a"]["id"][:-1], ""):
        assert f"there is no key {part!r}" in keys("revoke", part, code=2)[1]
    assert len(keys.listed()) == 2


def test_key_table_and_json_say_the_same(keys: Keys) -> None:
    keys.add("alice", "--budget-usd", "2.5", "--no-record", "--workload", "tickets")
    head, row = (line.split() for line in keys("list")[0].splitlines())
    (known,) = keys.listed().values()
    assert head == list(known)
    told = {True: "yes", False: "no", None: "-"}
    for word, cell in zip(head, row, strict=True):
        value = known[word]
        if isinstance(value, bool | None):
            assert cell == told[value], word
        elif isinstance(value, int | float):
            assert float(cell) == value, word
        else:
            assert cell == value, word


@pytest.mark.parametrize("name", ["Ключ", "a b", "", ".", "..", "../x", "a\nb", "x" * 65, "-"])
def test_key_names_that_cannot_be_are_refused(keys: Keys, name: str) -> None:
    out, errors = keys("add", "--", name, code=2)
    assert out == ""
    assert "hint: " in errors
    assert keys.listed("--all") == {}


@pytest.mark.parametrize("option", ["--budget-usd", "--requests-per-min", "--tokens-per-min"])
@pytest.mark.parametrize(
    "value", ["", " ", "many", "inf", "-inf", "NaN", "-0.5", "None", "2147483648", "0x10", "1e400"]
)
def test_key_numbers_that_are_none_are_refused(keys: Keys, option: str, value: str) -> None:
    keys.add("bob")
    for words in (["add", "a", option, value], ["set", "bob", option, value]):
        out, errors = keys(*words, code=2)
        assert out == "" and "is not a number from" in errors and "hint: `own key" in errors
    assert keys.limits("bob") == Limits()
    assert set(keys.listed()) == {"bob"}


@pytest.mark.parametrize("day", ["", "2027-02-30", "2999-1", "01.01.2999", "2999-01-01T00:00", "0"])
def test_key_days_that_are_none_are_refused(keys: Keys, day: str) -> None:
    _, errors = keys("add", "a", "--expires", day, code=2)
    assert "is not a day; write it as 2027-01-31" in errors
    assert keys.listed() == {}


@pytest.mark.parametrize("verb", ["add", "set", "revoke"])
def test_key_verbs_want_a_name(keys: Keys, verb: str) -> None:
    _, errors = keys(verb, code=2)
    assert "Missing argument 'NAME'" in errors and f"hint: `own key {verb} --help`" in errors


@settings(max_examples=25)
@given(usd=st.floats(0, 2**31 - 1), rate=st.integers(1, 2**31 - 1))
def test_key_numbers_come_back_as_they_were_given(
    tmp_path_factory: pytest.TempPathFactory, usd: float, rate: int
) -> None:
    project = Project(tmp_path_factory.mktemp("keys"))
    words = ["--budget-usd", repr(usd), "--requests-per-min", str(rate)]
    assert run(["--project", str(project.root), "key", "add", "alice", *words]) == 0
    with KeyStore.open(project) as store:
        (found,) = store.every()
    assert found.limits == Limits(budget_usd=usd, requests_per_min=rate)


@pytest.mark.parametrize("words", [["list"], ["list", "--all", "--json"]])
def test_key_list_where_nothing_is_makes_nothing(keys: Keys, words: list[str]) -> None:
    assert keys(*words)[0] == ""
    assert list(keys.project.root.iterdir()) == []


@pytest.mark.parametrize("words", [["set", "x", "--per", "day"], ["revoke", "x"]])
def test_key_verbs_where_nothing_is_make_nothing(keys: Keys, words: list[str]) -> None:
    assert "there is no key 'x'\nhint: there are: none" in keys(*words, code=2)[1]
    assert list(keys.project.root.iterdir()) == []


@pytest.mark.parametrize("name", ["a b/c", "", "-x", "ключ", "a" * 65])
def test_key_add_says_what_names_a_key(keys: Keys, name: str) -> None:
    errors = keys("add", "--", name, code=2)[1]
    assert f"{name!r} cannot name a key; use up to 64" in " ".join(errors.split())
    assert list(keys.project.root.iterdir()) == []
