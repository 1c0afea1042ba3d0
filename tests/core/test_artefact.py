"""Artefacts appear whole or not at all, are named by what is in them, and show any change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core import artefact as artefact_module
from ownweights.core.artefact import (
    CARD_NAME,
    ID_CHARS,
    Artefact,
    canonical_json,
    draft_folder,
    hash_file,
    hash_json,
    list_artefacts,
    open_artefact,
    read_card,
    seal,
    write_atomic,
)
from ownweights.core.errors import ArtefactError, ArtefactMissing, ArtefactUnwritten
from tests.disk import max_file_bytes

FILES = {"a.txt": b"alpha", "deep/b.bin": bytes(range(256))}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def make(kind_dir: Path, files: dict[str, bytes] | None = None, **named: Any) -> Artefact:
    named.setdefault("identity", {"seed": 1})
    with draft_folder(kind_dir) as draft:
        for name, data in (FILES if files is None else files).items():
            write_atomic(draft / name, data)
        return seal(draft, "student", **named)


# canonical JSON


@given(json_values)
def test_canonical_json_always_reads_back(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=5))
def test_canonical_json_always_ignores_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))
    assert canonical_json(turned) == canonical_json(value)
    assert hash_json(turned) == hash_json(value)


def test_canonical_json_has_no_spaces_and_keeps_letters() -> None:
    assert canonical_json({"b": [1, 2], "a": "é"}) == '{"a":"é","b":[1,2]}'.encode()


def test_canonical_json_spells_lone_surrogates() -> None:
    assert canonical_json("\ud800") == b'"\xed\xa0\x80"'


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


# writing


def test_write_atomic_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_write_atomic_keeps_the_old_bytes_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(artefact_module.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# identity


def test_artefact_same_content_same_id(tmp_path: Path) -> None:
    first = make(tmp_path / "one" / "student")
    second = make(tmp_path / "two" / "student")
    assert first.id == second.id
    assert len(first.id) == ID_CHARS


def test_artefact_made_twice_is_kept_once(tmp_path: Path) -> None:
    first = make(tmp_path, facts={"seconds": 1})
    second = make(tmp_path, facts={"seconds": 2})
    assert second.card["facts"] == first.card["facts"] == {"seconds": 1}
    assert [p.name for p in tmp_path.iterdir()] == [first.id]


@pytest.mark.parametrize(
    "change",
    [
        {"files": {**FILES, "a.txt": b"alphb"}},
        {"files": {"c.txt": b"alpha", "deep/b.bin": FILES["deep/b.bin"]}},
        {"identity": {"seed": 2}},
        {"parents": {"dataset": "abc"}},
    ],
    ids=["bytes", "name", "identity", "parents"],
)
def test_artefact_other_content_other_id(tmp_path: Path, change: dict[str, Any]) -> None:
    assert make(tmp_path, **change).id != make(tmp_path).id


def test_artefact_card_says_what_it_is_made_of(tmp_path: Path) -> None:
    made = make(tmp_path, parents={"dataset": "abc"}, facts={"note": "naïve"})
    card = read_card(made.path)
    assert card == made.card
    assert card["kind"] == "student"
    assert card["files"]["a.txt"] == hash_file(made.path / "a.txt")
    assert set(card["files"]) == set(FILES)
    assert (card["identity"], card["parents"]) == ({"seed": 1}, {"dataset": "abc"})
    assert card["facts"] == {"note": "naïve"}
    assert card["made_by"].startswith("ownweights ")


# wholeness


def test_draft_folder_is_gone_unless_sealed(tmp_path: Path) -> None:
    with draft_folder(tmp_path) as draft:
        write_atomic(draft / "a.txt", b"half")
    assert list(tmp_path.iterdir()) == []


CRASH = """
import os, sys
from pathlib import Path
from ownweights.core.artefact import draft_folder, seal, write_atomic
step, kind_dir = sys.argv[1], Path(sys.argv[2])
os.rename = lambda *_: os._exit(9)
with draft_folder(kind_dir) as draft:
    write_atomic(draft / "a.txt", b"alpha")
    if step == "writing":
        os._exit(9)
    seal(draft, "student", identity={"seed": 1})
"""


@pytest.mark.parametrize("step", ["writing", "sealing"])
def test_artefact_crash_leaves_no_half(tmp_path: Path, step: str) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, step, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert list_artefacts(tmp_path, "student") == []
    assert [p.name[:7] for p in tmp_path.iterdir()] == [".draft-"]
    made = make(tmp_path, {"a.txt": b"alpha"})  # the remains are in nobody's way
    assert [found.id for found in list_artefacts(tmp_path, "student")] == [made.id]


def test_artefact_sealed_by_many_at_once_is_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(tmp_path), range(24)))
    assert {artefact.id for artefact in made} == {made[0].id}
    assert [p.name for p in tmp_path.iterdir()] == [made[0].id]
    assert open_artefact(tmp_path, made[0].id, "student", verify=True).card["files"].keys() == (
        FILES.keys()
    )


# opening


def test_open_artefact_takes_a_unique_prefix(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert open_artefact(tmp_path, made.id[:4], "student", verify=True) == made


def test_open_artefact_refuses_an_ambiguous_prefix(tmp_path: Path) -> None:
    for name in ("abc1", "abc2"):
        (tmp_path / name).mkdir()
    with pytest.raises(ArtefactMissing, match="'abc' is ambiguous") as caught:
        open_artefact(tmp_path, "abc", "student")
    assert caught.value.hint == "there are: abc1, abc2"


def test_open_artefact_names_what_there_is(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(ArtefactMissing, match="student 'zzz' does not exist") as caught:
        open_artefact(tmp_path, "zzz", "student")
    assert caught.value.hint == f"there are: {made.id}"
    with pytest.raises(ArtefactMissing, match="there are: none"):
        open_artefact(tmp_path / "nowhere", "zzz", "student")


@pytest.mark.parametrize("bad", ["", "../x", ".draft-1", "a/b"])
def test_open_artefact_refuses_what_is_no_id(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ArtefactMissing, match="is not an artefact id"):
        open_artefact(tmp_path, bad, "student")


def test_open_artefact_refuses_another_kind(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(ArtefactError, match="is a 'student', expected a dataset"):
        open_artefact(tmp_path, made.id, "dataset")


def test_open_artefact_finds_a_missing_file(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.path / "a.txt").unlink()
    with pytest.raises(ArtefactError, match=r"lacks its file 'a\.txt'"):
        open_artefact(tmp_path, made.id, "student")


@pytest.mark.parametrize("position", [0, 100, 255])
def test_open_artefact_finds_changed_byte(tmp_path: Path, position: int) -> None:
    made = make(tmp_path)
    path = made.path / "deep" / "b.bin"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert open_artefact(tmp_path, made.id, "student") == made  # only `verify` reads every byte
    with pytest.raises(ArtefactError, match=r"file 'deep/b\.bin' is not what its card says"):
        open_artefact(tmp_path, made.id, "student", verify=True)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, "has no card.json"),
        (b"{", "is not readable JSON"),
        (b"\xff", "is not readable JSON"),
        (b"[]", "is not a card: id must be text"),
        (b'{"id": 1}', "is not a card: id must be text"),
        (b'{"id": "x", "kind": "student", "files": []}', "files must be an object"),
        (b'{"id": NaN}', "is not readable JSON: NaN is no number"),
        (b"[" * 200_000, "is not readable JSON"),
    ],
)
def test_read_card_says_what_is_wrong(tmp_path: Path, card: bytes | None, message: str) -> None:
    if card is not None:
        (tmp_path / CARD_NAME).write_bytes(card)
    with pytest.raises(ArtefactError, match=message):
        read_card(tmp_path)


def test_list_artefacts_is_oldest_first(tmp_path: Path) -> None:
    made = [make(tmp_path, identity={"seed": seed}) for seed in range(3)]
    for day, artefact in enumerate(made):
        card = {**artefact.card, "created_at": f"2026-01-0{9 - day}T00:00:00+00:00"}
        (artefact.path / CARD_NAME).write_text(json.dumps(card))
    (tmp_path / "stray-file").write_text("x")
    found = list_artefacts(tmp_path, "student")
    assert [artefact.id for artefact in found] == [artefact.id for artefact in reversed(made)]


def test_list_artefacts_of_nothing_is_empty(tmp_path: Path) -> None:
    assert list_artefacts(tmp_path / "nowhere", "student") == []


# what is broken

DAMAGE: dict[str, Callable[[Path], object]] = {
    "byte": lambda path: (path / "a.txt").write_bytes(b"alphb"),
    "empty file": lambda path: (path / "deep" / "b.bin").write_bytes(b""),
    "missing file": lambda path: (path / "a.txt").unlink(),
    "folder for a file": lambda path: ((path / "a.txt").unlink(), (path / "a.txt").mkdir()),
    "file for a folder": lambda path: (
        shutil.rmtree(path / "deep"),
        (path / "deep").write_text(""),
    ),
    "no card": lambda path: (path / CARD_NAME).unlink(),
    "cut card": lambda path: (path / CARD_NAME).write_text('{"id": '),
    "list for a card": lambda path: (path / CARD_NAME).write_text("[]"),
    "folder for a card": lambda path: ((path / CARD_NAME).unlink(), (path / CARD_NAME).mkdir()),
    "files a list": lambda path: change_card(path, files=[]),
    "no files": lambda path: change_card(path, files={}),
    "no time": lambda path: change_card(path, created_at=None),
    "no identity": lambda path: change_card(path, identity=None),
    "other identity": lambda path: change_card(path, identity={"seed": 3}),
    "no facts": lambda path: change_card(path, facts=7),
    "other kind": lambda path: change_card(path, kind="dataset"),
}


def change_card(path: Path, **fields: Any) -> None:
    (path / CARD_NAME).write_text(json.dumps({**read_card(path), **fields}))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_seal_mends_what_is_damaged(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    made = make(tmp_path)
    damage(made.path)
    with pytest.raises(ArtefactError):
        open_artefact(tmp_path, made.id, "student", verify=True)
    again = make(tmp_path)
    assert again == open_artefact(tmp_path, made.id, "student", verify=True)
    assert again.card["files"] == made.card["files"]
    assert [path.name for path in tmp_path.iterdir()] == [made.id]


def test_seal_takes_the_place_of_a_stray_file(tmp_path: Path) -> None:
    made = make(tmp_path)
    shutil.rmtree(made.path)
    made.path.write_text("stray")
    assert make(tmp_path).id == made.id
    open_artefact(tmp_path, made.id, "student", verify=True)


MENDING = """
import os, sys
from pathlib import Path
from ownweights.core import artefact
from ownweights.core.artefact import draft_folder, seal, write_atomic
left, kind_dir, replace = int(sys.argv[1]), Path(sys.argv[2]), os.replace
with draft_folder(kind_dir) as draft:
    for name in ("a", "b", "c"):
        (draft / name).write_text(name)
    def replace_some(source, target):
        global left
        if ".draft-" not in str(target):
            left -= 1
            if left < 0:
                os._exit(9)
        replace(source, target)
    os.replace = replace_some
    seal(draft, "student", identity={"seed": 1})
"""


@pytest.mark.parametrize("steps", range(4))
def test_seal_crash_while_mending_is_mended_later(tmp_path: Path, steps: int) -> None:
    files = {name: name.encode() for name in "abc"}
    made = make(tmp_path, files)
    for name in files:
        (made.path / name).write_bytes(b"damaged")
    words = [sys.executable, "-c", MENDING, str(steps), str(tmp_path)]
    assert subprocess.run(words, check=False).returncode == 9
    found = [(made.path / name).read_bytes() for name in files]
    assert found.count(b"damaged") == max(0, 3 - steps)  # old or new, nothing between
    make(tmp_path, files)
    open_artefact(tmp_path, made.id, "student", verify=True)


@pytest.mark.parametrize("name", sorted(DAMAGE.keys() - {"byte", "empty file"}))
def test_list_artefacts_names_what_is_broken(tmp_path: Path, name: str) -> None:
    good, bad = make(tmp_path), make(tmp_path, identity={"seed": 2})
    (tmp_path / "stray").mkdir()
    shutil.copytree(good.path, tmp_path / "copy")
    DAMAGE[name](bad.path)
    told: dict[str, str] = {}
    assert list_artefacts(tmp_path, "student", told.__setitem__) == [good]
    assert told.keys() == {"stray", "copy", bad.id}
    assert "has no card.json" in told["stray"]
    assert "is not the card of copy" in told["copy"]
    assert list_artefacts(tmp_path, "student") == [good]


def test_open_artefact_prefix_skips_stray_files(tmp_path: Path) -> None:
    made = make(tmp_path)
    (tmp_path / f"{made.id}.txt").write_text("notes")
    assert open_artefact(tmp_path, made.id[:5], "student") == made


# what cannot be written


def test_seal_says_so_when_it_cannot_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(ArtefactUnwritten, match="could not be written: read-only"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_draft_folder_on_a_full_disk_says_which_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtefactUnwritten, match=r"a\.txt could not be written: File too large") as e,
        max_file_bytes(100),
    ):
        make(tmp_path, {"a.txt": bytes(1000)})
    assert "give the same command again" in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_draft_folder_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactUnwritten, match="could not be written: Not a directory"):
        make(tmp_path / "file" / "student")


def test_draft_folder_passes_other_errors_on(tmp_path: Path) -> None:
    for error in (ArtefactMissing("gone"), ZeroDivisionError()):
        with pytest.raises(type(error)), draft_folder(tmp_path):
            raise error
