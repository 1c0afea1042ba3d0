"""Laws of erasing: order and number of steps are nothing, a kill loses nothing, the rest stays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownweights.core import tombstone
from ownweights.core.errors import ArtefactError
from ownweights.core.project import Project
from ownweights.core.tombstone import TOMBSTONE, erased_from, erased_lines, erased_mark, mark_erased
from ownweights.dataset import Dataset, load_dataset
from ownweights.dataset.erase import Gone, erase_examples
from ownweights.dataset.load import split_file
from ownweights.dataset.split import SPLITS
from ownweights.traffic import Record
from tests.dataset.records import built, many, phrase, record

NUM = 24
TWINS = 4


class Killed(BaseException):
    """The process ends here."""


def records() -> list[Record]:
    """Some of their own, some of the same question with answers that overlap, some quoted oddly."""
    twins = [record("the same question", f"reply {n % 2}", id=f"t{n}") for n in range(TWINS)]
    odd = [record(f'{phrase(900 + n)} "\\ é 日 \u2028', f"ö{n}", id=f"o-{n}~x") for n in range(4)]
    return [*many(NUM), *twins, *odd]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    project = Project(tmp_path_factory.mktemp("whole"))
    return project, built(project, records()).id


@pytest.fixture
def copied(whole: tuple[Project, str], tmp_path: Path) -> Dataset:
    return copy_of(whole, tmp_path / "copied")


def copy_of(whole: tuple[Project, str], folder: Path) -> Dataset:
    shutil.copytree(whole[0].root, folder)
    return load_dataset(Project(folder), whole[1])


def erase(dataset: Dataset, chosen: list[Record], **options: Any) -> Counter[str]:
    gone = Gone()
    for one in chosen:
        gone.add(one.source_id or one.id, one)
    project = Project(dataset.path.parents[2])
    counts: Counter[str] = Counter()
    for report in erase_examples(project, {"w": gone}, **options):
        counts.update(report.counts)
    return counts


def lines_of(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [json.loads(text) for text in
                (dataset.path / split_file(split)).read_text("utf-8").split("\n")[:-1]]
        for split in SPLITS
    }  # fmt: skip


def asked_in(row: dict[str, Any]) -> str:
    return row["request"]["messages"][-1]["content"]


def check(dataset: Dataset, before: dict[str, list[Any]], chosen: list[Record]) -> None:
    """What brute force says is left: no example of these, no answer that they alone gave there."""
    names = {one.source_id for one in chosen}
    away = {(one.request["messages"][-1]["content"], one.answer_text) for one in chosen}
    for split, rows in lines_of(dataset).items():
        wanted = [row for row in before[split] if row["id"] not in names]
        kept = {(asked_in(row), row["target"]) for row in wanted}
        assert [row["id"] for row in rows] == [row["id"] for row in wanted]
        for row, old in zip(rows, wanted, strict=True):
            assert {**row, "references": 0} == {**old, "references": 0}
            said = [(asked_in(old), one) for one in old["references"]]
            assert row["references"] == [one[1] for one in said if one not in away or one in kept]
    assert load_dataset(Project(dataset.path.parents[2]), dataset.id, verify=True).id == dataset.id


@settings(max_examples=25)
@given(chosen=st.sets(st.integers(0, len(records()) - 1)), cut=st.integers(0, 40))
def test_erase_examples_in_two_steps_is_as_in_one(
    whole: tuple[Project, str], tmp_path_factory: pytest.TempPathFactory,
    chosen: set[int], cut: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("laws")
    once, twice = copy_of(whole, folder / "once"), copy_of(whole, folder / "twice")
    before, every = lines_of(once), records()
    picked = [every[n] for n in sorted(chosen)]
    told = erase(once, picked)
    assert told == erase(twice, picked[:cut]) + erase(twice, picked[cut:])
    for dataset in (once, twice):
        left = erased_from(dataset.path)
        assert told.total() <= (left.num if left else 0)
        lines = erased_lines(dataset.path)
        assert {s: lines.get(split_file(s), 0) for s in SPLITS} == {s: told[s] for s in SPLITS}
    check(once, before, picked)
    num = {split: len(rows) for split, rows in before.items()}
    assert {split: len(rows) for split, rows in lines_of(twice).items()} == {
        split: num[split] - told[split] for split in SPLITS
    }
    check(twice, before, picked)
    shutil.rmtree(folder)


@settings(max_examples=25)
@given(chosen=st.sets(st.integers(0, len(records()) - 1), min_size=1))
def test_erase_examples_counts_what_its_dry_run_says(
    whole: tuple[Project, str], tmp_path_factory: pytest.TempPathFactory, chosen: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("dry")
    dataset = copy_of(whole, folder / "it")
    picked = [records()[n] for n in chosen]
    would = erase(dataset, picked, dry_run=True)
    assert not (dataset.path / TOMBSTONE).exists()
    assert erase(dataset, picked) == would
    assert erase(dataset, picked, dry_run=True).total() == 0
    shutil.rmtree(folder)


@pytest.mark.parametrize("place", ["rewrite", "note", "replace"])
@pytest.mark.parametrize("call", range(5))
def test_erase_examples_killed_is_finished_by_the_next(
    copied: Dataset, monkeypatch: pytest.MonkeyPatch, place: str, call: int
) -> None:
    before, picked = lines_of(copied), records()[::2]
    module, name = {"rewrite": (tombstone.json, "dumps"), "note": (tombstone, "_note"),
                    "replace": (os, "replace")}[place]  # fmt: skip
    real, calls = getattr(module, name), [0]

    def dies(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] > call:
            raise Killed
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dies)
        try:
            erase(copied, picked)
        except Killed:
            assert calls[0] == call + 1
    assert load_dataset(Project(copied.path.parents[2]), copied.id, verify=True).id == copied.id
    assert not [path for path in copied.path.iterdir() if path.name.startswith(".")]
    erase(copied, picked)
    check(copied, before, picked)
    gone = {split: {r["id"] for r in rows} & {r.source_id for r in picked}
            for split, rows in before.items()}  # fmt: skip
    lines = erased_lines(copied.path)
    assert {s: lines.get(split_file(s), 0) for s in SPLITS} == {s: len(gone[s]) for s in SPLITS}


def test_tombstone_holds_the_hash_of_every_line_and_no_text(copied: Dataset) -> None:
    picked = records()[:NUM:3]
    names = {one.source_id for one in picked}
    wanted: dict[str, set[str]] = {}
    for split in SPLITS:
        path = copied.path / split_file(split)
        for text in path.read_bytes().splitlines(keepends=True):
            if json.loads(text)["id"] in names:
                wanted.setdefault(path.name, set()).add(hashlib.sha256(text).hexdigest())
    erase(copied, picked)
    text = (copied.path / TOMBSTONE).read_text("utf-8")
    files = json.loads(text)["files"]
    assert {name: set(files[name]["lines"]) for name in wanted} == wanted
    for name, entry in files.items():
        assert entry["left"][-1] == hashlib.sha256((copied.path / name).read_bytes()).hexdigest()
    for one in picked:
        assert str(one.request["messages"][-1]["content"]) not in text
        assert str(one.answer_text) not in text


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_dataset_changed_after_an_erasure_is_found_out(copied: Dataset, change: str) -> None:
    erase(copied, records()[:6])
    path = copied.path / split_file("train")
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    path.write_bytes({"more": data + lines[0], "less": b"".join(lines[1:]),
                      "other": data.replace(b"reply", b"Reply", 1)}[change])  # fmt: skip
    with pytest.raises(ArtefactError):
        load_dataset(Project(copied.path.parents[2]), copied.id, verify=True)


def test_lines_that_went_cannot_be_put_back_unseen(copied: Dataset) -> None:
    """The file as it was made is sound; what stands between the two is not."""
    path = copied.path / split_file("train")
    old = path.read_bytes()
    assert erase(copied, many(NUM))["train"] > 1
    first = old.splitlines(keepends=True)[0]
    path.write_bytes(path.read_bytes() + first)
    with pytest.raises(ArtefactError):
        load_dataset(Project(copied.path.parents[2]), copied.id, verify=True)


def test_erase_examples_of_everything_leaves_empty_splits(copied: Dataset) -> None:
    removed = len(copied.removed())
    told, left = erase(copied, records()), erased_from(copied.path)
    assert left is not None and left.num == told.total() + removed
    assert all(rows == [] for rows in lines_of(copied).values())
    assert copied.removed() == []


@given(steps=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6))
def test_marks_count_each_example_once_however_often_killed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]]
) -> None:
    folder, done = tmp_path_factory.mktemp("marks"), 0
    for num, is_killed in steps:
        mark_erased(folder, "a", "d", num, before=done)
        if is_killed:  # some went, and the rest is asked for again
            half = num // 2
            mark_erased(folder, "a", "d", num - half, before=done + half)
        done += num
    mark = erased_mark(folder, "a")
    assert (mark.num if mark else 0) == done


def test_marks_of_two_datasets_add_up(tmp_path: Path) -> None:
    mark_erased(tmp_path, "a", "d", 5, before=0)
    assert mark_erased(tmp_path, "a", "e", 3, before=0).num == 8
    assert mark_erased(tmp_path, "b", "e", 3, before=40).num == 3


def test_mark_that_cannot_be_read_is_a_mark(tmp_path: Path) -> None:
    mark_erased(tmp_path, "a", "d", 5, before=0)
    (path,) = (tmp_path / ".erased").iterdir()
    for text in ("{", "[]", '{"num": "many"}', "\x00"):
        path.write_text(text)
        mark = erased_mark(tmp_path, "a")
        assert mark is not None and mark.num == 0
        assert mark_erased(tmp_path, "a", "d", 2, before=0).num == 2
