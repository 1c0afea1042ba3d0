"""A secret that is written once."""

from __future__ import annotations

from pathlib import Path

from ownweights.core.secret import write_once


def test_write_once_keeps_what_was_first(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    write_once(path, b"first")
    write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_write_once_is_for_its_owner_alone(tmp_path: Path) -> None:
    write_once(tmp_path / "secret", b"x")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
