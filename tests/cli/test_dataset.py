"""`own dataset`: build, list, show and export from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownweights.cli.dataset import options_of
from ownweights.cli.main import main
from ownweights.core.artefact import draft_folder, seal
from ownweights.core.project import Project
from ownweights.core.settings import load_settings
from ownweights.dataset import list_datasets, load_dataset
from ownweights.traffic import TrafficStore
from tests.dataset.records import SYSTEM, many, record
from tests.dataset.test_build import asking

COUNT = 60


class Shell:
    """`own --project DIR dataset ...`, and what it printed."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        self.project = project
        self._capsys = capsys

    def __call__(self, *words: object, code: int = 0) -> tuple[str, str]:
        returned = main(["--project", str(self.project.root), "dataset", *map(str, words)])
        out, errors = self._capsys.readouterr()
        assert returned == code, errors
        return out, errors

    def json(self, *words: object) -> list[Any]:
        out, _ = self(*words, "--json")
        return [json.loads(text) for text in out.split("\n")[:-1]]

    def build(self, *words: object) -> str:
        return self("build", "--workload", "w", *words)[0].strip()


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    project = Project(tmp_path / "project")
    with TrafficStore.open(project) as store:
        twins = [record(asking("train", skip=90), id=f"twin{n}") for n in range(2)]
        store.add([*many(COUNT), *twins, record("cut", id="cut", finish="length")])
        store.add(many(9, model="gpt-4o", workload="rented"))
    return Shell(project, capsys)


def test_dataset_build_prints_the_id_alone(own: Shell) -> None:
    made = own.build()
    assert [one.id for one in list_datasets(own.project)] == [made]


def test_dataset_build_tells_what_it_did(own: Shell) -> None:
    _, errors = own("build", "--workload", "w")
    assert "split by prompt: no record has a session\n" in errors
    assert "system prompt: static, left out of what the student sees\n" in errors
    assert "left out as duplicates: 1 repeat\n" in errors
    assert "warning: people wrote these answers: the licence of the data decides" in errors


def test_dataset_build_prints_the_card_as_json(own: Shell) -> None:
    (card,) = own.json("build", "--workload", "w")
    assert card == load_dataset(own.project, card["id"]).card


def test_dataset_build_takes_flags(own: Shell) -> None:
    with TrafficStore.open(own.project) as store:
        store.add(many(5, workload="talks", session="s", metadata={"who": "ann"}))
    words = ("build", "--workload", "talks", "--split-by", "who", "--no-prune", "--licence", "MIT")
    (card,) = own.json(*words)
    assert card["identity"]["split_by"] == "meta:who"
    assert card["identity"]["prune"]["drops_system"] is False
    assert card["facts"]["data_licence"]["id"] == "MIT"


def test_dataset_build_refuses_a_denied_teacher(own: Shell) -> None:
    out, errors = own("build", "--workload", "rented", code=4)
    assert out == ""
    assert "error: the terms of gpt-4o deny training on the answers" in errors
    assert "hint: if you have the right all the same, say so by name: --allow-teacher gpt-4o" in (
        errors
    )


def test_dataset_build_allows_a_teacher_by_name(own: Shell) -> None:
    _, errors = own("build", "--workload", "rented", "--allow-teacher", "gpt-4o")
    assert "warning: gpt-4o: OpenAI Services Agreement denies training" in errors


def test_dataset_build_refuses_an_unknown_workload(own: Shell) -> None:
    _, errors = own("build", "--workload", "nope", code=1)
    assert "error: there is no record of workload 'nope'" in errors


def settings_text(own: Shell, text: str) -> None:
    own.project.settings_path.write_text(text, "utf-8")


def test_dataset_build_reads_the_settings(own: Shell) -> None:
    settings_text(own, '[workload.rented]\nallow_teachers = ["gpt-4o"]\nprune_system = false\n')
    (card,) = own.json("build", "--workload", "rented")
    assert card["identity"]["options"]["allow_teachers"] == ["gpt-4o"]
    assert card["identity"]["prune"]["drops_system"] is False


def test_dataset_build_plants_the_canaries_of_the_settings(own: Shell) -> None:
    settings_text(own, "[workload.w]\ncanaries = 3\n")
    _, errors = own("build", "--workload", "w")
    line = "canaries: 3 made-up secrets planted in 3 examples of train, 3 kept out of it\n"
    assert line in errors
    (made,) = list_datasets(own.project)
    out, _ = own("show", made.id)
    assert line in out
    (card,) = own.json("show", made.id)
    assert [one["num_planted"] for one in card["facts"]["canaries"]] == [1, 0] * 3


def test_dataset_build_without_canaries_says_nothing_of_them(own: Shell) -> None:
    made = own.build()
    assert "canaries" not in own("show", made)[0]


def test_dataset_build_refuses_more_canaries_than_train_can_bear(own: Shell) -> None:
    settings_text(own, "[workload.rented]\ncanaries = 3\n")
    _, errors = own("build", "--workload", "rented", "--allow-teacher", "gpt-4o", code=1)
    assert "error: 3 canaries are too many for" in errors
    assert "hint: at most 0: set `canaries` lower" in errors


def test_options_of_takes_the_terms_a_contract_gives(own: Shell) -> None:
    settings_text(
        own,
        '[teacher.big]\nbase_url = "https://x/v1"\nmodel = "gpt-4o"\nterms = "allowed"\n'
        '[teacher.small]\nbase_url = "https://x/v1"\nmodel = "other"\n',
    )
    options = options_of(load_settings(own.project), "rented")
    assert options.declared_terms == {"gpt-4o": "allowed"}
    own("build", "--workload", "rented")


def test_dataset_list_has_a_row_each(own: Shell) -> None:
    made = own.build()
    (row,) = own.json("list")
    assert (row["id"], row["workload"]) == (made, "w")
    assert sum(row[split] for split in ("train", "develop", "certify", "test")) >= COUNT
    assert own("list", "--workload", "other") == ("", "there is no dataset yet\n")


def test_dataset_show_prints_splits_and_teachers(own: Shell) -> None:
    made = own.build()
    out, errors = own("show", made[:6])
    assert out.startswith(f"dataset {made} of workload w, ")
    rows = [line.split() for line in out.split("\n") if line.startswith(("train", "labelled"))]
    counts = load_dataset(own.project, made).counts
    assert rows[0][:2] == ["train", str(counts["train"])]
    assert rows[0][3] == "1"
    assert rows[1][0] == "labelled-by-people"
    assert "warning: people wrote these answers" in errors


def test_dataset_show_prints_the_card_as_json(own: Shell) -> None:
    made = own.build()
    assert own.json("show", made) == [load_dataset(own.project, made).card]


def test_dataset_show_lists_what_was_left_out(own: Shell) -> None:
    made = own.build()
    (row,) = own.json("show", made, "--removed")
    assert list(row) == ["id", "split", "reason", "like", "asks"]
    assert {row["id"], row["like"]} == {"twin0", "twin1"}


def test_dataset_show_verifies(own: Shell) -> None:
    made = own.build()
    (load_dataset(own.project, made).path / "test.jsonl").write_bytes(b"")
    _, errors = own("show", made, "--verify", code=1)
    assert "file 'test.jsonl' is not what its card says" in errors


def test_dataset_show_says_when_no_prompt_is_static(own: Shell) -> None:
    with TrafficStore.open(own.project) as store:
        store.add(many(5, workload="v"))
        request = {"model": "m", "messages": [{"role": "user", "content": "no system"}]}
        store.add([record(id="bare", request=request, workload="v")])
    own("build", "--workload", "v")
    (row,) = own.json("list", "--workload", "v")
    assert "system prompt: none, or not the same in every request\n" in own("show", row["id"])[0]


def test_dataset_export_writes_a_split(own: Shell, tmp_path: Path) -> None:
    made, file = own.build(), tmp_path / "test.jsonl"
    out, _ = own("export", made, file, "--split", "test")
    num_test = load_dataset(own.project, made).counts["test"]
    lines = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
    assert len(lines) == num_test
    assert lines[0]["messages"][0] == {"role": "system", "content": SYSTEM}
    assert out == f"{file}: {num_test} examples of test\n"


def test_dataset_export_prints_json(own: Shell, tmp_path: Path) -> None:
    made, file = own.build(), tmp_path / "x.jsonl"
    (told,) = own.json("export", made, file, "--pruned")
    num_train = load_dataset(own.project, made).counts["train"]
    assert told == {"file": str(file), "left_out": 0, "written": num_train}
    first = json.loads(file.read_text("utf-8").split("\n")[0])
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]


def test_dataset_export_counts_what_has_no_answer(own: Shell, tmp_path: Path) -> None:
    with TrafficStore.open(own.project) as store:
        cut = record(asking("certify"), id="cut", finish="length", workload="v")
        store.add([cut, *many(3, workload="v")])
    own("build", "--workload", "v")
    (row,) = own.json("list", "--workload", "v")
    out, _ = own("export", row["id"], tmp_path / "x", "--split", "certify")
    assert out.endswith("examples of certify, 1 without an answer in text left out\n")


def test_dataset_list_names_what_is_broken(own: Shell) -> None:
    made = own.build()
    folder = own.project.kind_dir("dataset")
    (folder / "stray").mkdir()
    with draft_folder(folder) as draft:
        odd = seal(draft, "dataset", identity={"workload": "w"})
    out, errors = own("list")
    assert made in out and odd.id not in out
    assert f"warning: dataset stray is passed over: {folder / 'stray'} has no card.json" in errors
    assert f"{odd.id} is passed over: dataset {odd.id}: its card lacks identity.split_by" in errors
    listed = {row["id"]: row for row in own.json("list")}
    assert listed.keys() == {made, "stray", odd.id}
    assert "has no card.json" in listed["stray"]["broken"] and "broken" not in listed[made]
    for name in ("stray", odd.id):
        _, errors = own("show", name, code=1)
        assert "hint: " in errors and "again, which mends it, or delete its folder" in errors


def test_dataset_build_again_mends_it(own: Shell) -> None:
    made = own.build()
    path = own.project.kind_dir("dataset") / made / "train.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    own("show", made, "--verify", code=1)
    assert own.build() == made
    own("show", made, "--verify")
