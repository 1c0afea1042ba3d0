"""`own traffic delete` from an import to the last byte: nothing stays, and everything says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ownweights.cli.main import main
from ownweights.cli.traffic import erase as erase_module
from ownweights.core import tombstone
from ownweights.core.artefact import draft_folder, seal
from ownweights.core.project import Project
from ownweights.core.tombstone import erased_from, erased_mark
from ownweights.dataset import erase as examples
from ownweights.dataset import load_dataset
from ownweights.dataset.split import SPLITS
from ownweights.route import live
from ownweights.route.route import active_standing
from ownweights.traffic import TrafficStore
from ownweights.traffic import erase as rows
from ownweights.verdict import run_verdict, voiding
from ownweights.verdict.voiding import void_reason
from tests.cli.test_traffic import Shell
from tests.dataset.records import phrase
from tests.route.samples import follow
from tests.traffic.samples import line, write_lines
from tests.verdict import worlds

EVE, BOB = range(40), range(40, 120)
FRAME = b"\x28\xb5\x2f\xfd"
STAGES = ["mark", "void", "withdraw", "examples", "split", "note", "rows", "settle"]


class Killed(BaseException):
    """The process ends here."""


def user_line(number: int) -> dict[str, Any]:
    who = "Ève-Müller" if number in EVE else "bob"
    request = {"model": "big", "messages": [{"role": "user", "content": phrase(number)}]}
    metadata = {"workload": "w", "session": f"s-{who}"}
    return line(number, request=request, metadata=metadata, end_user=who, at=1.7e9 + number)


class World:
    """What a month of use leaves: an import, a dataset, its student, a certificate, a route."""

    def __init__(self, own: Shell, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.own, self.project, self.capsys = own, Project(own.folder), capsys
        file = write_lines(folder / "x.jsonl", [user_line(n) for n in (*EVE, *BOB)])
        own("import", file)
        assert self.tell("dataset", "build", "--workload", "w", "--split-by", "prompt") == 0
        (dataset,) = [p for p in self.project.kind_dir("dataset").iterdir() if p.name[0] != "."]
        self.dataset_id = dataset.name
        with draft_folder(self.project.kind_dir("student")) as draft:
            (draft / "adapter_config.json").write_text("{}")
            parents = {"dataset": self.dataset_id}
            self.student = seal(draft, "student", identity={}, parents=parents).id
        data = worlds.dataset(100, 400)
        self.certificate = run_verdict(data, worlds.student(data), self.project, self.student).id
        follow(self.project, student_id=self.student, verdict_id=self.certificate)
        capsys.readouterr()

    def tell(self, *words: str) -> int:
        return main(["--project", str(self.own.folder), *words])

    def said(self, *words: str) -> str:
        self.tell(*words)
        return "".join(self.capsys.readouterr())

    def names(self) -> set[str]:
        dataset = load_dataset(self.project, self.dataset_id, verify=True)
        return {one.id for split in SPLITS for one in dataset.examples(split)}

    def studied(self, names: set[str]) -> int:
        dataset = load_dataset(self.project, self.dataset_id)
        splits = ("train", "develop")
        return sum(one.id in names for split in splits for one in dataset.examples(split))


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "project", capsys)


@pytest.fixture
def world(own: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return World(own, tmp_path, capsys)


def everything(project: Project) -> bytes:
    """Every byte below .own, as it lies and with every zstd frame unpacked."""
    found: list[bytes] = []
    for path in project.store_dir.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        found.append(data)
        for part in data.split(FRAME)[1:]:
            frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                found.append(frame.decompress(FRAME + part))
            except zstandard.ZstdError:
                continue
    return b"\0".join(found)


def traces(number: int) -> list[bytes]:
    texts = [phrase(number), f'answer {number}"', f'"id-{number}"']
    return [text.encode() for text in texts]


def test_everything_reads_into_segments(world: World) -> None:
    left = everything(world.project)
    assert all(trace in left for number in (0, 39, 119) for trace in traces(number))
    assert "Ève-Müller".encode() in left


@pytest.mark.parametrize("whose", ["user", "session", "id"])
def test_delete_leaves_no_byte_and_says_so_everywhere(own: Shell, world: World, whose: str) -> None:
    names = {f"id-{n}" for n in EVE}
    gone, before = names & world.names(), world.names()
    studied = world.studied(gone)
    assert gone and studied
    words = {"user": ["--user", "Ève-Müller"], "session": ["--session", "s-Ève-Müller"]}.get(whose)
    if words is None:
        rows = own.json("list", "--user", "Ève-Müller", "--limit", 200)
        words = [word for row in rows for word in ("--id", row["id"])]
    (facts,) = own.json("delete", *words, "--yes")
    assert (facts["records"], facts["students"]) == (len(EVE), [world.student])
    assert (facts["voided"], facts["elsewhere"]) == ([world.certificate], [])
    assert facts["store"]["is_clean"] and facts["store"]["records"] == len(EVE)
    left = everything(world.project)
    assert [t for n in EVE for t in traces(n) if t in left] == []
    assert "Ève-Müller".encode() not in left
    assert all(trace in left for n in (40, 119) for trace in traces(n)[2:])

    assert world.names() == before - gone
    dataset = load_dataset(world.project, world.dataset_id)
    told = erased_from(dataset.path)
    assert told is not None and told.num >= len(gone)
    mark = erased_mark(world.project.kind_dir("student"), world.student)
    assert mark is not None and (mark.num, mark.dataset) == (studied, world.dataset_id)
    for words in (["student", "show", world.student], ["lineage", "show", world.student]):
        assert f"trained before {mark.note}" in world.said(*words)
    assert mark.note in world.said("lineage", "check", world.student)
    voided = void_reason(world.project, world.certificate)
    assert voided is not None and voided.by == "own traffic delete"
    assert active_standing(world.project, "tickets") is None


def test_delete_reaches_what_was_made_of_a_student(own: Shell, world: World) -> None:
    """Trained on, a teacher, merged into a base: each holds what the student was trained on."""
    project = world.project

    def made(kind: str, identity: dict[str, str], **parents: str) -> str:
        with draft_folder(project.kind_dir(kind)) as draft:
            (draft / "config.json").write_text("{}")
            return seal(draft, kind, identity=identity, parents=parents).id

    on = made("student", {}, dataset="f" * 12, start=world.student)
    taught = made("student", {}, dataset="f" * 12, teacher_student=on)
    merged = made("base", {"merged_from": taught}, base="e" * 12, student=taught)
    of_base = made("student", {"base_name": merged}, dataset="f" * 12, base="d" * 12)
    of_full = made("student", {"base_name": f"/elsewhere/.own/student/{of_base}"}, base="c" * 12)
    other = made("student", {"base_name": "seedling"}, dataset="f" * 12)
    reached = {world.student, on, taught, of_base, of_full}
    (facts,) = own.json("delete", "--user", "Ève-Müller", "--yes")
    assert set(facts["students"]) == reached
    marks = {one: erased_mark(project.kind_dir("student"), one) for one in (*reached, other)}
    assert {one for one, mark in marks.items() if mark is not None} == reached
    assert len({mark and (mark.num, mark.dataset) for one, mark in marks.items() if mark}) == 1
    assert erased_mark(project.kind_dir("base"), merged) is not None


def test_delete_tells_of_the_route_that_it_sends_back(own: Shell, world: World) -> None:
    assert active_standing(world.project, "tickets") is not None
    _, errors = own("delete", "--user", "Ève-Müller", "--yes")
    assert "tickets goes to the teacher again: examples that its student was" in errors
    assert phrase(0) not in errors and "Ève" not in errors


def test_delete_again_finds_nothing_left(own: Shell, world: World) -> None:
    (would,) = own.json("delete", "--user", "Ève-Müller", "--dry-run")
    (first,) = own.json("delete", "--user", "Ève-Müller", "--yes")
    for name in ("records", "datasets", "students"):
        assert would[name] == first[name]
    mark = erased_mark(world.project.kind_dir("student"), world.student)
    (again,) = own.json("delete", "--user", "Ève-Müller", "--yes")
    assert {name: again[name] for name in again if name != "store"} == {
        "records": 0, "datasets": [], "students": [], "voided": [], "copies": [], "elsewhere": []
    }  # fmt: skip
    assert erased_mark(world.project.kind_dir("student"), world.student) == mark
    assert "0 records are erased" in own("delete", "--user", "Ève-Müller", "--yes")[1]


def test_delete_of_the_others_marks_again(own: Shell, world: World) -> None:
    studied = world.studied(world.names())
    own("delete", "--user", "Ève-Müller", "--yes")
    first = erased_mark(world.project.kind_dir("student"), world.student)
    own("delete", "--user", "bob", "--yes")
    both = erased_mark(world.project.kind_dir("student"), world.student)
    assert first is not None and both is not None
    assert 0 < first.num < both.num == studied
    assert world.names() == set()
    assert own("list") == ("", "no record matches\n")


@pytest.mark.parametrize("reply", ["n\n", "\n", "no\n", ""])
def test_delete_answered_with_no_changes_nothing(
    own: Shell, world: World, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    before, names = own.json("list", "--limit", 500), world.names()
    monkeypatch.setattr(sys, "stdin", _Terminal(reply))
    returned = world.tell("traffic", "delete", "--user", "Ève-Müller")
    assert returned != 0
    assert "40 records would be erased" in world.capsys.readouterr().err
    assert own.json("list", "--limit", 500) == before
    assert world.names() == names
    assert erased_mark(world.project.kind_dir("student"), world.student) is None
    assert void_reason(world.project, world.certificate) is None


def test_delete_answered_with_yes_erases(
    own: Shell, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal("y\n"))
    assert world.tell("traffic", "delete", "--user", "Ève-Müller") == 0
    assert "Erase them for good?" in world.capsys.readouterr().err
    assert {row["end_user"] for row in own.json("list", "--limit", 500)} == {"bob"}


class _Terminal:
    """A standard input that is a person at a terminal."""

    def __init__(self, reply: str) -> None:
        self._lines = reply.splitlines(keepends=True)

    def isatty(self) -> bool:
        return True

    def readline(self, *_: int) -> str:
        return self._lines.pop(0) if self._lines else ""

    def __iter__(self) -> Any:
        return iter(self._lines)


def _kill_at(stage: str, patch: pytest.MonkeyPatch) -> None:
    def end(*_: Any, **__: Any) -> Any:
        raise Killed

    target: dict[str, tuple[Any, str]] = {
        "mark": (tombstone, "mark_erased"), "void": (voiding, "void_certificates"),
        "withdraw": (live, "withdraw_void"), "note": (tombstone, "_note"),
        "rows": (rows, "take_out"), "settle": (rows, "settle"),
    }  # fmt: skip
    if stage in target:
        patch.setattr(*target[stage], end)
        return
    rewrite, calls = examples.rewrite_lines, [0]

    def some(*given: Any) -> int:
        calls[0] += 1
        if calls[0] > (1 if stage == "split" else len(SPLITS) + 1):
            raise Killed
        return rewrite(*given)

    if stage == "examples":  # all of them went, and the rows are still there
        patch.setattr(rows, "erase", end)
        return
    patch.setattr(examples, "rewrite_lines", some)


@pytest.mark.parametrize("stage", STAGES)
def test_delete_killed_anywhere_is_finished_by_the_next(
    own: Shell, world: World, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    names, before = {f"id-{n}" for n in EVE}, world.names()
    studied = world.studied(names)
    with monkeypatch.context() as patch:
        _kill_at(stage, patch)
        with pytest.raises(Killed):
            own("delete", "--user", "Ève-Müller", "--yes")
    world.names()  # the dataset is sound wherever that ended
    own("delete", "--user", "Ève-Müller", "--yes")
    assert world.names() == before - names
    mark = erased_mark(world.project.kind_dir("student"), world.student)
    assert mark is not None and mark.num == studied
    assert void_reason(world.project, world.certificate) is not None
    assert active_standing(world.project, "tickets") is None
    left = everything(world.project)
    assert [t for n in EVE for t in traces(n) if t in left] == []
    own("verify")


def test_delete_warns_of_a_dataset_that_it_cannot_read(own: Shell, world: World) -> None:
    (load_dataset(world.project, world.dataset_id).path / "card.json").write_text("{")
    _, errors = own("delete", "--user", "Ève-Müller", "--yes")
    assert f"warning: dataset {world.dataset_id} cannot be read and may hold some" in errors
    assert "40 records are erased" in errors


def test_delete_of_a_pruned_body_still_reaches_its_example(own: Shell, world: World) -> None:
    own("prune", "--bodies-before", "2100-01-01")
    before = world.names()
    own("delete", "--user", "Ève-Müller", "--yes")
    assert world.names() == before - {f"id-{n}" for n in EVE}


def test_delete_of_one_id_twice_counts_it_once(own: Shell, world: World) -> None:
    (row,) = own.json("list", "--limit", 1)
    (facts,) = own.json("delete", "--id", row["id"], "--id", row["id"], "--yes")
    assert facts["records"] == 1
    with TrafficStore.open(world.project) as store:
        assert store.get(row["id"]) is None


@pytest.mark.parametrize(
    "words",
    [["--user", "a", "--session", "b"], ["--user", "a", "--id", "b"], [],
     ["--session", "b", "--id", "c"], ["--user", "a", "--session", "b", "--id", "c"]],
)  # fmt: skip
def test_delete_wants_to_know_whose(own: Shell, world: World, words: list[str]) -> None:
    _, errors = own("delete", *words, "--yes", code=2)
    assert "say whose records are erased" in errors and "hint: own traffic delete" in errors
    assert len(own.json("list", "--limit", 500)) == 120


def test_delete_takes_no_beginning_of_an_id(own: Shell, world: World) -> None:
    (row,) = own.json("list", "--limit", 1)
    _, errors = own("delete", "--id", row["id"][:8], "--yes", code=2)
    assert "hint: own traffic list prints whole ids" in errors
    assert json.dumps(own.json("list", "--limit", 500)).count('"pruned": null') == 120


def test_delete_names_other_files_that_hold_what_was_asked(
    own: Shell, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase_module, "_READ_BYTES", 64)
    monkeypatch.setattr(erase_module, "MAX_TEXTS", len(EVE) - 1)
    notes = world.project.store_dir / "notes"
    notes.mkdir()
    (notes / "eve.txt").write_text("x" * 50 + json.dumps(phrase(EVE[0])) + "x" * 200)
    (notes / "bob.txt").write_text(json.dumps(phrase(40)))
    _, told = own("delete", "--user", "Ève-Müller", "--dry-run")
    assert ".own/notes/eve.txt holds what some of them ask" in told
    assert "bob.txt" not in told
    assert f"searched for {len(EVE) - 1} of {len(EVE)} different requests" in told


MASKED = ["Eve.Smith@example.com", "+44 20 7946 0958", "eve (eve@example.com)", "198.51.100.7"]


@pytest.mark.parametrize("who", MASKED)
@pytest.mark.parametrize("option", ["--user", "--session"])
def test_delete_finds_whom_masking_has_renamed(
    own: Shell, tmp_path: Path, who: str, option: str
) -> None:
    for number, rule in enumerate(("--redact", "--no-redact")):
        lines = [line(n, id=f"{number}-{n}", metadata={"workload": f"w{number}", "session": name},
                      end_user=name)
                 for n, name in enumerate((who, "bob@example.com"))]  # fmt: skip
        own("import", write_lines(tmp_path / f"{number}.jsonl", lines), rule)
    ends = {row["end_user"] for row in own.json("list")}
    assert len(ends) == 4  # each once as it is, and once masked
    (facts,) = own.json("delete", option, who, "--yes")
    assert facts["records"] == 2
    assert len({row["end_user"] for row in own.json("list")} & ends) == 2
    assert own.json("delete", option, who, "--yes")[0]["records"] == 0
