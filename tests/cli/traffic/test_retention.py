"""`own traffic prune` and `own traffic delete`, over all that was made of the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.main import main
from ownweights.core.artefact import draft_folder, seal
from ownweights.core.project import Project
from ownweights.core.tombstone import erased_mark
from ownweights.dataset import load_dataset
from ownweights.route.promotion import NotCertified, check_not_void
from ownweights.traffic import TrafficStore
from ownweights.verdict import list_verdicts, run_verdict
from ownweights.verdict.voiding import void_reason
from tests.cli.test_traffic import Shell
from tests.dataset.records import built, many
from tests.verdict import worlds


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "project", capsys)


def seal_student(project: Project, dataset_id: str, name: str) -> str:
    with draft_folder(project.kind_dir("student")) as draft:
        (draft / "adapter_config.json").write_text("{}")
        return seal(draft, "student", identity={"seed": name}, parents={"dataset": dataset_id}).id


class World:
    """Records of three users, a dataset, a student of it and its certificate, and others."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        records = [
            *many(60, session="s-eve", metadata={"user": "eve"}),
            *(
                one
                for n, one in enumerate(many(160, session="s-bob", metadata={"user": "bob"}))
                if n >= 60
            ),
        ]
        with TrafficStore.open(self.project) as store:
            store.add(records)
            self.records = list(store.records())
        self.dataset = built(self.project, self.records)
        self.student = seal_student(self.project, self.dataset.id, "a")
        self.stranger = seal_student(self.project, "0123456789ab", "b")
        data = worlds.dataset(100, 400)
        self.certificate = run_verdict(data, worlds.student(data), self.project, self.student)
        self.other = run_verdict(data, worlds.student(data), self.project, self.stranger)


@pytest.fixture
def world(own: Shell) -> World:
    return World(own.folder)


def test_traffic_delete_reaches_everything(own: Shell, world: World) -> None:
    before = sum(len(world.dataset.examples(s)) for s in ("train", "develop", "certify", "test"))
    out, errors = own("delete", "--user", "eve", "--yes")
    assert out == ""
    assert "60 records are erased" in errors
    assert f"dataset {world.dataset.id}: " in errors
    assert f"student {world.student} was trained on some of them" in errors
    assert f"certificate {world.certificate.id} is void" in errors
    dataset = load_dataset(world.project, world.dataset.id, verify=True)
    left = [e.id for s in ("train", "develop", "certify", "test") for e in dataset.examples(s)]
    assert len(left) == before - 60
    assert not {f"r{n}" for n in range(60)} & set(left)
    assert void_reason(world.project, world.other.id) is None
    with pytest.raises(NotCertified, match="examples that its student was trained on were erased"):
        check_not_void(world.project, world.certificate.id)
    assert len(list_verdicts(world.project)) == 2
    own("verify")
    assert len(own.json("list", "--limit", 1000)) == 100
    assert own.json("delete", "--user", "eve", "--yes")[0]["records"] == 0


def test_what_was_erased_shows_downstream(own: Shell, world: World, capsys: Any) -> None:
    own("delete", "--session", "s-eve", "--yes")
    mark = erased_mark(world.project.kind_dir("student"), world.student)
    assert mark is not None
    folder = ["--project", str(own.folder)]
    assert main([*folder, "student", "show", world.student]) == 0
    assert f"trained before {mark.note}" in capsys.readouterr().err
    assert main([*folder, "student", "show", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["id"]: row["erased"] for row in rows} == {
        world.student: mark.num, world.stranger: None
    }  # fmt: skip
    assert main([*folder, "lineage", "show", world.student]) == 0
    out = capsys.readouterr().out
    assert f"trained before {mark.note}" in out
    assert "examples were erased by" in out.split("dataset", 1)[1]
    main([*folder, "lineage", "check", world.student, "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["condition", "student"] in [[row["severity"], row["kind"]] for row in found]


def test_traffic_delete_dry_run_changes_nothing(own: Shell, world: World) -> None:
    (facts,) = own.json("delete", "--user", "eve", "--dry-run")
    assert (facts["records"], facts["students"], facts["voided"]) == (60, [world.student], [])
    assert facts["store"] is None
    assert len(own.json("list", "--limit", 1000)) == 160
    assert void_reason(world.project, world.certificate.id) is None
    assert erased_mark(world.project.kind_dir("student"), world.student) is None


def test_traffic_delete_asks_first(own: Shell, world: World) -> None:
    _, errors = own("delete", "--user", "eve", code=2)
    assert "60 records would be erased" in errors
    assert "nobody is there to ask" in errors
    assert len(own.json("list", "--limit", 1000)) == 160


def test_traffic_delete_by_id(own: Shell, world: World) -> None:
    ids = [row["id"] for row in own.json("list", "--limit", 2)]
    (facts,) = own.json("delete", "--id", ids[0], "--id", ids[1], "--yes")
    assert facts["records"] == 2
    assert "there is no record" in own("delete", "--id", ids[0], "--yes", code=2)[1]
    assert "say whose records" in own("delete", "--yes", code=2)[1]


def test_traffic_delete_says_where_else_it_is(own: Shell, world: World) -> None:
    asks = world.records[0].request["messages"][-1]["content"]
    elsewhere = world.project.store_dir / "drift" / "main" / "canaries.jsonl"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(json.dumps({"asks": asks}))
    copy = world.project.database_path.with_name("own.db.before-7")
    copy.write_bytes(b"x")
    _, errors = own("delete", "--user", "eve", "--yes")
    assert "own.db.before-7 is a copy of the index and holds the rows" in errors
    assert ".own/drift/main/canaries.jsonl holds what some of them ask" in errors
    assert copy.exists()
    own("delete", "--user", "eve", "--yes", "--with-backups")
    assert not copy.exists()


def test_traffic_prune_follows_the_settings(own: Shell, world: World) -> None:
    assert "0 records went whole, 0 lost their bodies" in own("prune")[1]
    (own.folder / "own.toml").write_text("[store]\nkeep_bodies_days = 30\n")
    (would,) = own.json("prune", "--dry-run")
    assert (would["records"], would["bodies"]) == (0, 160)
    out, errors = own("prune")
    assert out == ""
    assert "160 lost their bodies" in errors
    assert " bytes freed" in errors
    rows = own.json("list", "--limit", 200)
    assert {row["asks"] for row in rows} == {"(taken out)"}
    shown, errors = own("show", rows[0]["id"])
    assert rows[0]["id"] in shown
    assert "its bodies were taken out on 20" in errors
    assert own.json("show", rows[0]["id"])[0]["pruned"]
    assert own.json("stats")[0]["pruned"] == 160
    own("prune", "--before", "2000-01-01")
    assert own.json("stats") == []
    own("verify")


@pytest.mark.parametrize("words", [["--before", "soon"], ["--bodies-before", "2024-13-01"]])
def test_traffic_prune_refuses_what_is_no_day(own: Shell, words: list[str]) -> None:
    assert "is no day; write 2024-02-27" in own("prune", *words, code=2)[1]
