"""Which kinds are masked for which workload, and who finds names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ownweights.core.errors import InputError, SettingsError
from ownweights.core.project import Project
from ownweights.traffic.record import make_record
from ownweights.traffic.redact import KINDS, Privacy, PrivacyRules, kinds_of, load_recogniser

KEY = "sk-proj-a1b2c3d4e5f6g7h8i9j0"
NAMES = r"""
import re
def names(text):
    return [match.span(1) for match in re.finditer(r"(Ana|Diaz) ", text)]
def broken(text):
    raise ValueError(text)
def odd(text):
    return [(0, len(text) + 1)]
def words(text):
    return ["Ana"]
"""


@pytest.fixture
def entry(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    project.root.mkdir(parents=True)
    (project.root / "who_is_named.py").write_text(NAMES)
    yield "who_is_named"
    import sys

    monkeypatch.delitem(sys.modules, "who_is_named", raising=False)


def asked(project: Project, rules: PrivacyRules, text: str, workload: str = "w") -> str:
    """What is written of a question."""
    request = {"messages": [{"role": "user", "content": text}]}
    record = make_record(request, None, role="teacher", workload=workload)
    return Privacy(project, rules).record(record).request["messages"][0]["content"]


def test_keys_are_always_masked(project: Project) -> None:
    for rules in (PrivacyRules(), PrivacyRules(redact=("email",)), PrivacyRules(redact=("all",))):
        assert asked(project, rules, KEY).startswith("<KEY_")
    assert asked(project, PrivacyRules(redact=("none",)), KEY) == KEY


def test_a_workload_has_kinds_of_its_own(project: Project) -> None:
    rules = PrivacyRules(
        redact=("email",), workload_redact={"ips": ("ip",), "raw": ("none",)},
        unrecorded=frozenset({"off"}),
    )  # fmt: skip
    text = f"{KEY} ana@example.org 203.0.113.77"
    kinds = [word[1:3] for word in asked(project, rules, text).split() if word[0] == "<"]
    assert kinds == ["KE", "EM"]
    assert asked(project, rules, text, "ips").split()[1] == "ana@example.org"
    assert "<IP_" in asked(project, rules, text, "ips")
    assert asked(project, rules, text, "raw") == text
    assert [Privacy(project, rules).is_recorded(name) for name in ("w", "off")] == [True, False]


@pytest.mark.parametrize("words", [("none", "key"), ("emial",), ("key", "")])
def test_kinds_that_cannot_be_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"redact: "):
        kinds_of(words)


def test_all_is_all_that_patterns_find() -> None:
    assert set(kinds_of(("all",))) == set(KINDS) - {"name", "data"}


def test_names_need_a_recogniser(project: Project) -> None:
    with pytest.raises(SettingsError, match=r"hint: \[store\] needs recognizer"):
        Privacy(project, PrivacyRules(redact=("name",)))


def test_recogniser_masks_names_wherever_they_stand(project: Project, entry: str) -> None:
    rules = PrivacyRules(redact=("name", "email"), recognizer=f"{entry}:names")
    masked = asked(project, rules, "Ana Diaz is ana.diaz@example.org, Anatol is not Ana")
    assert "Ana " not in masked and "Diaz" not in masked
    assert masked.count("<NAME_") == 3 and masked.count("<EMAIL_") == 1


@pytest.mark.parametrize("name", ["broken", "odd", "words"])
def test_recogniser_that_fails_lets_nothing_through(
    project: Project, entry: str, name: str
) -> None:
    rules = PrivacyRules(redact=("name",), recognizer=f"{entry}:{name}")
    with pytest.raises(InputError, match=f"recognizer {entry}:{name}") as raised:
        asked(project, rules, "Ana Diaz")
    assert "Diaz" not in str(raised.value)


@pytest.mark.parametrize("entry", ["no_such_module:names", "json:no_such", "json", "a b:c"])
def test_recogniser_that_is_not_there_is_named(tmp_path: Path, entry: str) -> None:
    with pytest.raises(SettingsError, match="recognizer"):
        load_recogniser(entry, tmp_path)
