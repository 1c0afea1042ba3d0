"""Placeholders: one for each value, and none without the key."""

from __future__ import annotations

import pytest

from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic.redact import KINDS, Placeholders, find_spans
from ownweights.traffic.redact.placeholder import KEY_NAME, PLACEHOLDER


@pytest.mark.parametrize(
    ("kind", "one", "same", "other"),
    [
        ("email", "Ana@Example.org", "ana%40example.ORG", "ann@example.org"),
        ("phone", "+44 20 7946-0958", "+442079460958", "+442079460959"),
        ("card", "4111 1111 1111 1111", "4111111111111111", "4111111111111112"),
        ("iban", "gb82 west 1234 5698 7654 32", "GB82WEST12345698765432", "GB82"),
        ("name", "Ana  Diaz", "ana diaz", "Ana"),
        ("key", "aB", "aB", "ab"),
    ],
)
def test_placeholder_is_the_same_for_one_value(
    project: Project, kind: str, one: str, same: str, other: str
) -> None:
    made = Placeholders(project).of(kind, one)
    assert PLACEHOLDER.fullmatch(made) and made.startswith(f"<{kind.upper()}_")
    assert made == Placeholders(project).of(kind, same) != Placeholders(project).of(kind, other)


def test_placeholder_needs_the_key(project: Project) -> None:
    first = Placeholders(project).of("email", "ana@example.org")
    key = project.store_dir / KEY_NAME
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    assert Placeholders(project).of("email", "ana@example.org") != first


def test_placeholder_tells_kinds_apart(project: Project) -> None:
    made = {Placeholders(project).of(kind, "4111").split("_")[1] for kind in KINDS}
    assert len(made) == len(KINDS)


@pytest.mark.parametrize("content", ["", "abcd", "no key", "é"])
def test_placeholder_refuses_a_key_that_is_none(project: Project, content: str) -> None:
    project.store_dir.mkdir(parents=True)
    (project.store_dir / KEY_NAME).write_text(content)
    with pytest.raises(StoreError, match=r"hint: restore it"):
        Placeholders(project).of("email", "ana@example.org")


def test_placeholder_is_nothing_that_is_found(project: Project) -> None:
    placeholders = Placeholders(project)
    made = " ".join(placeholders.of(kind, str(n)) for kind in KINDS for n in range(300))
    assert find_spans(f"password: {made}", KINDS) == []
