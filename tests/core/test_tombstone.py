"""What was erased from an artefact is gone, and what is left still verifies."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from ownweights.core.artefact import Artefact, draft_folder, open_artefact, seal
from ownweights.core.errors import ArtefactError
from ownweights.core.tombstone import (
    TOMBSTONE,
    erased_from,
    erased_lines,
    erased_mark,
    mark_erased,
    rewrite_lines,
)


@pytest.fixture
def made(tmp_path: Path) -> Artefact:
    with draft_folder(tmp_path / "dataset") as draft:
        (draft / "a.jsonl").write_bytes(b"one\ntwo\nthree\n")
        (draft / "b.jsonl").write_bytes(b"two\n")
        return seal(draft, "dataset", identity={})


def without_two(line: bytes) -> bytes | None:
    return None if line == b"two\n" else line


def verified(made: Artefact) -> Artefact:
    return open_artefact(made.path.parent, made.id, "dataset", verify=True)


def test_open_artefact_knows_an_erasure(made: Artefact) -> None:
    assert rewrite_lines(made.path, "a.jsonl", without_two) == 1
    assert (made.path / "a.jsonl").read_bytes() == b"one\nthree\n"
    assert verified(made).id == made.id
    assert erased_lines(made.path) == {"a.jsonl": 1}
    assert hashlib.sha256(b"two\n").hexdigest() in (made.path / TOMBSTONE).read_text()
    found = erased_from(made.path)
    assert found is not None
    assert found.note.startswith("1 examples were erased by 20")


def test_open_artefact_still_finds_any_other_change(made: Artefact) -> None:
    rewrite_lines(made.path, "a.jsonl", without_two)
    (made.path / "a.jsonl").write_bytes(b"one\n")
    with pytest.raises(ArtefactError, match="is not what its card says"):
        verified(made)


def test_an_erasure_of_one_file_excuses_no_other(made: Artefact) -> None:
    rewrite_lines(made.path, "a.jsonl", without_two)
    (made.path / "b.jsonl").write_bytes(b"one\nthree\n")
    with pytest.raises(ArtefactError, match=r"b\.jsonl"):
        verified(made)


def test_rewrite_lines_of_nothing_leaves_no_tombstone(made: Artefact) -> None:
    assert rewrite_lines(made.path, "a.jsonl", lambda line: line) == 0
    assert not (made.path / TOMBSTONE).exists()
    assert erased_from(made.path) is None


def test_rewrite_lines_again_adds_up(made: Artefact) -> None:
    rewrite_lines(made.path, "a.jsonl", without_two)
    rewrite_lines(made.path, "a.jsonl", lambda line: None if line == b"one\n" else line)
    rewrite_lines(made.path, "b.jsonl", without_two)
    assert verified(made).id == made.id
    assert erased_lines(made.path) == {"a.jsonl": 2, "b.jsonl": 1}
    found = erased_from(made.path)
    assert found is not None
    assert found.num == 3


def test_a_crash_before_the_file_changed_leaves_it_sound(
    made: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if Path(target).name == "a.jsonl":
            raise OSError("the power went")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="the power went"):
        rewrite_lines(made.path, "a.jsonl", without_two)
    monkeypatch.undo()
    assert verified(made).id == made.id
    assert rewrite_lines(made.path, "a.jsonl", without_two) == 1
    assert verified(made).id == made.id
    assert erased_lines(made.path) == {"a.jsonl": 1}


def test_mark_adds_up_over_erasures(tmp_path: Path) -> None:
    assert erased_mark(tmp_path, "abc") is None
    mark_erased(tmp_path, "abc", "d1", 2)
    found = mark_erased(tmp_path, "abc", "d1", 3)
    assert (found.num, found.dataset) == (5, "d1")
    assert erased_mark(tmp_path, "abc") == found
    assert found.note.startswith("5 examples of dataset d1 were erased by 20")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"num": "x"}'])
def test_a_damaged_mark_still_marks(tmp_path: Path, text: str) -> None:
    mark_erased(tmp_path, "abc", "d1", 2)
    (tmp_path / ".erased" / "abc.json").write_text(text)
    found = erased_mark(tmp_path, "abc")
    assert found is not None
    assert found.num == 0


def test_rewrite_lines_takes_turns(made: Artefact) -> None:
    """Else the later of two would bring back what the earlier one took out."""
    folder = os.open(made.path, os.O_RDONLY)

    def rewrite(line: bytes) -> bytes | None:
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return without_two(line)

    assert rewrite_lines(made.path, "a.jsonl", rewrite) == 1
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and it was let go
    os.close(folder)


def test_rewrite_lines_leaves_no_draft_of_one_that_was_killed(made: Artefact) -> None:
    (made.path / ".a.jsonl.12.ab").write_bytes(b"one\ntwo\n")
    (made.path / ".b.jsonl.12.ab").write_bytes(b"two\n")
    rewrite_lines(made.path, "a.jsonl", lambda line: line)
    assert sorted(path.name for path in made.path.glob(".*")) == [".b.jsonl.12.ab"]
