"""A dataset holds what its records allow, whole, in the right split, under a lasting id."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError, TermsRefused
from ownweights.core.project import Project
from ownweights.dataset import Dataset, DatasetOptions, build_dataset, load_dataset
from ownweights.dataset.dedupe import HELD_OUT, STUDIED
from ownweights.dataset.split import SPLITS, split_of
from tests.dataset.records import (
    PERSON,
    SYSTEM,
    answer,
    body,
    built,
    in_messages,
    many,
    phrase,
    record,
)
from tests.dataset.test_select import CALL, LOOP
from tests.traffic.samples import run_python

COUNT = 120


def ids(dataset: Dataset, split: str) -> set[str]:
    return {example.id for example in dataset.examples(split)}


def asking(split: str, *, skip: int = 0) -> str:
    """A question that falls into the split."""
    found = (phrase(n) for n in range(10_000) if split_of(f"prompt:{phrase(n)}") == split)
    for _ in range(skip):
        next(found)
    return next(found)


def test_build_dataset_puts_every_record_in_the_split_of_its_unit(project: Project) -> None:
    dataset = built(project, many(COUNT))
    seen = 0
    for split in SPLITS:
        for example in dataset.examples(split):
            assert example.unit == f"prompt:{example.request['messages'][-1]['content']}"
            assert split_of(example.unit) == split
            seen += 1
    assert seen == COUNT
    assert dataset.counts == {split: len(ids(dataset, split)) for split in SPLITS}


def test_build_dataset_keeps_request_answer_and_metadata(project: Project) -> None:
    one = record("where?", "here", id="r-1", metadata={"gold": "there"}, model="some-model-9")
    (example,) = built(project, [one]).examples(split_of("prompt:where"))
    assert (example.id, example.target, example.references) == ("r-1", "here", ("here",))
    assert (example.request, example.model) == (one.request, "some-model-9")
    assert example.metadata == {"gold": "there"}


def test_build_dataset_ignores_other_workloads(project: Project) -> None:
    others = [record("other", workload="v", id="v-1")]
    assert built(project, [*many(9), *others]).id == built(project, many(9)).id


@given(st.randoms(use_true_random=False))
def test_build_dataset_always_same_id_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    records = [*many(15), record("twice", "a", id="x"), record("twice", "b", id="x")]
    project = Project(tmp_path_factory.mktemp("order"))
    first = built(project, records)
    rng.shuffle(records)
    assert built(project, records).id == first.id


def test_build_dataset_id_ignores_when_records_came_in(project: Project) -> None:
    early, late = (built(project, many(9, at=moment)) for moment in (1.0, 2e9))
    assert early.id == late.id


@pytest.mark.parametrize(
    "changed",
    [
        {"salt": "other"},
        {"fractions": (0.5, 0.2, 0.2, 0.1)},
        {"prune_system": False},
        {"near_dup_jaccard": 0.9},
        {"allow_teachers": ("x",)},
    ],
)
def test_build_dataset_with_other_options_is_another(
    project: Project, changed: dict[str, Any]
) -> None:
    assert built(project, many(30), **changed).id != built(project, many(30)).id


def test_build_dataset_with_another_record_is_another(project: Project) -> None:
    assert built(project, many(31)).id != built(project, many(30)).id


def test_build_dataset_never_moves_a_unit_when_records_are_added(project: Project) -> None:
    small, large = built(project, many(40)), built(project, many(80))
    for split in SPLITS:
        assert ids(small, split) <= ids(large, split)


sessions = st.lists(
    st.tuples(st.sampled_from("pqrstuvw"), st.sampled_from("abcdef"), st.sampled_from("xy")),
    min_size=1,
    max_size=30,
)


@given(sessions)
def test_build_dataset_never_splits_a_unit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    records = [
        record(f"question {asks} please", says, session=session, id=str(number))
        for number, (session, asks, says) in enumerate(rows)
    ]
    try:
        dataset = built(Project(tmp_path_factory.mktemp("units")), records)
    except InputError:
        raise AssertionError("every record here can be studied") from None
    assert dataset.split_by == "session"
    units = {split: {one.unit for one in dataset.examples(split)} for split in SPLITS}
    for number, split in enumerate(SPLITS):
        assert all(units[split].isdisjoint(units[other]) for other in SPLITS[:number])
        assert dataset.card["facts"]["units"][split] == len(units[split])


def test_build_dataset_names_equal_ids_apart(project: Project) -> None:
    dataset = built(project, [record("one", "a", id="x"), record("two", "b", id="x")])
    assert {one for split in SPLITS for one in ids(dataset, split)} == {"x", "x~1"}


def test_build_dataset_uses_the_record_s_own_id_without_a_file_s(project: Project) -> None:
    one = record("one")
    dataset = built(project, [one])
    assert {name for split in SPLITS for name in ids(dataset, split)} == {one.id}


def test_build_dataset_references_are_all_answers_in_the_split(project: Project) -> None:
    asks = asking("certify")
    records = [record(asks, says, id=f"r{n}") for n, says in enumerate("abab")]
    found = {e.id: e.references for e in built(project, records).examples("certify")}
    assert {name: set(texts) for name, texts in found.items()} == {key: {"a", "b"} for key in found}
    assert [found[f"r{n}"][0] for n in range(4)] == list("abab")


def test_build_dataset_references_stay_within_one_request(project: Project) -> None:
    asks = asking("test")
    format_ = {"response_format": {"type": "json_object"}}
    records = [
        record(asks, "a", id="a"),
        record(request=body(asks, **format_), says="b", id="b"),
        record(asks.upper(), "c", id="c"),
        record(request=body(asks, temperature=1.0, user="u"), says="d", id="d"),
    ]
    found = {e.id: set(e.references) for e in built(project, records).examples("test")}
    assert found == {"a": {"a", "d"}, "b": {"b"}, "c": {"c"}, "d": {"a", "d"}}


def test_build_dataset_keeps_several_answers_to_study(project: Project) -> None:
    asks = asking("train")
    records = [record(asks, says, id=f"r{n}") for n, says in enumerate("abb")]
    found = built(project, records).examples("train")
    assert sorted(e.target for e in found) == ["a", "b"]
    assert {frozenset(e.references) for e in found} == {frozenset("ab")}


def test_build_dataset_prunes_a_static_system_prompt(project: Project) -> None:
    dataset = built(project, many(COUNT))
    for example in dataset.examples("train"):
        assert example.messages == example.request["messages"][1:]
        assert example.request["messages"][0]["content"] == SYSTEM
    assert dataset.prune is not None
    assert dataset.card["identity"]["prune"] == dataset.prune.to_json()


@pytest.mark.parametrize("is_held_out", [True, False])
def test_build_dataset_never_prunes_a_prompt_that_changes(
    project: Project, is_held_out: bool
) -> None:
    asks = asking("certify" if is_held_out else "train", skip=300)
    other = record(request=body(asks, system="For Bob."), id="bob")
    dataset = built(project, [*many(COUNT), other])
    assert dataset.prune is None
    assert all(e.messages == e.request["messages"] for e in dataset.examples("train"))


def test_build_dataset_keeps_held_out_requests_whole(project: Project) -> None:
    """What cannot be studied is still asked, and nothing the student says to it is right."""

    def odd(split: str, kind: str, place: int) -> Any:
        asks = asking(split, skip=place)
        loop = [{"role": "user", "content": asks}, *LOOP[1:]]
        fields: dict[str, Any] = {
            "cut": {"finish": "length"},
            "call": {"response": answer(None, tool_calls=CALL)},
            "loop": {"request": body(loop)},
        }[kind]
        return record(asks, "some text", id=f"{split}-{kind}", **fields)

    kinds = ("cut", "call", "loop")
    records = [odd(split, kind, n) for split in SPLITS for n, kind in enumerate(kinds)]
    dataset = built(project, [*records, record(asking("train", skip=9), id="whole")])
    assert ids(dataset, "train") == {"whole"}
    assert ids(dataset, "develop") == set()
    for split in HELD_OUT:
        found = {e.id: (e.target, e.references) for e in dataset.examples(split)}
        assert found == {
            f"{split}-cut": ("", ()),
            f"{split}-call": ("", ()),
            f"{split}-loop": ("some text", ("some text",)),
        }
    facts = dataset.card["facts"]
    counted = {"tool_call": 1, "tool_loop": 1, "truncated": 1}
    assert facts["held_out_only"] == dict.fromkeys(HELD_OUT, counted)
    assert facts["skipped"] == {**dict.fromkeys(STUDIED, counted), **{key: {} for key in HELD_OUT}}


def test_build_dataset_loses_what_no_teacher_answered(project: Project) -> None:
    lost = [
        record(asking("test"), id="e", response=None),
        record(asking("test", skip=1), id="s", role="student"),
    ]
    dataset = built(project, [*many(3), *lost])
    assert ids(dataset, "test").isdisjoint({"e", "s"})
    assert dataset.card["facts"]["skipped"]["test"] == {"by_student": 1, "error": 1}


def test_build_dataset_refuses_when_nothing_can_be_studied(project: Project) -> None:
    records = [record(id="a", finish="length"), record("b", response=None, id="b")]
    with pytest.raises(InputError, match="none of the 2 records can be studied: "):
        built(project, records)


def test_build_dataset_refuses_an_unknown_workload(project: Project) -> None:
    with pytest.raises(InputError, match="there is no record of workload 'z'") as caught:
        build_dataset(many(2), project, workload="z")
    assert caught.value.hint == "`own traffic stats` lists them"


def test_build_dataset_refuses_denied_teacher(project: Project) -> None:
    with pytest.raises(TermsRefused, match="the terms of gpt-4o deny training") as caught:
        built(project, many(9, model="gpt-4o"))
    assert caught.value.teachers == ("gpt-4o",)
    assert not project.kind_dir("dataset").exists()


def test_build_dataset_allows_a_denied_teacher_by_name(project: Project) -> None:
    dataset = built(project, many(9, model="gpt-4o"), allow_teachers=("gpt-4o",))
    (use,) = dataset.card["facts"]["teachers"]
    assert (use["model"], use["trains"], use["is_overridden"]) == ("gpt-4o", "denied", True)
    assert dataset.card["identity"]["options"]["allow_teachers"] == ["gpt-4o"]


def test_build_dataset_only_judged_against_a_denied_teacher_is_fine(project: Project) -> None:
    held = record(asking("certify", skip=50), id="h", model="gpt-4o")
    dataset = built(project, [*many(20), held])
    assert [use["model"] for use in dataset.card["facts"]["teachers"]] == [PERSON]


def test_build_dataset_takes_declared_terms(project: Project) -> None:
    declared = {"house-model": "denied"}
    with pytest.raises(TermsRefused, match="the terms of house-model deny"):
        built(project, many(9, model="house-model"), declared_terms=declared)


def test_build_dataset_reports_progress(project: Project) -> None:
    told: list[tuple[float, float | None, str]] = []
    build_dataset(many(9), project, workload="w", on_progress=lambda *step: told.append(step))
    assert told == [(0, 9, "comparing"), (9, 9, "writing")]


def test_build_dataset_writes_lines_that_any_reader_reads(project: Project) -> None:
    odd = "line\u2028separator \x85 and a \ud800 lone half"
    dataset = built(project, [record(asking("train"), odd, id="odd")])
    (line,) = (dataset.path / "train.jsonl").read_bytes().rstrip(b"\n").split(b"\n")
    assert json.loads(line.decode("utf-8", "surrogatepass"))["target"] == odd
    assert [e.target for e in dataset.examples("train")] == [odd]


def test_build_dataset_again_keeps_the_first(project: Project) -> None:
    first = built(project, many(9))
    again = built(project, many(9))
    assert again.card == first.card
    assert [path.name for path in project.kind_dir("dataset").iterdir()] == [first.id]


def test_build_dataset_is_whole(project: Project) -> None:
    dataset = built(project, many(COUNT))
    assert load_dataset(project, dataset.id, verify=True).card == dataset.card
    files = {f"{split}.jsonl" for split in SPLITS} | {"removed.jsonl"}
    assert set(dataset.card["files"]) == files


def test_options_default_to_the_shared_split(tmp_path: Path) -> None:
    """Pre-training relies on the default salt and fractions to know what is held out."""
    options = DatasetOptions()
    assert [split_of(f"u{n}", options.fractions, options.salt) for n in range(99)] == [
        split_of(f"u{n}") for n in range(99)
    ]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from ownweights.core.project import Project
from tests.dataset.records import built, many
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
try:
    built(Project(Path(sys.argv[1])), many(400))
except OSError as error:
    print(error)
"""


def test_build_dataset_on_a_full_disk_names_the_file(project: Project) -> None:
    out, errors = run_python(FULL_DISK, project.root).communicate()
    assert "File too large" in out and "train.jsonl" in out, errors
    assert list(project.kind_dir("dataset").iterdir()) == []


def test_build_dataset_studies_messages_in_their_chat_form(project: Project) -> None:
    spoken = [in_messages(one) for one in many(COUNT)]
    odd = record("odd", id="odd", protocol="responses")
    strange = replace(spoken[0], id="strange", source_id="strange",
                      request={**spoken[0].request, "top_k": 5})  # fmt: skip
    dataset = built(project, [*spoken, odd, strange])
    plain = built(project, many(COUNT))
    for split in SPLITS:
        assert ids(dataset, split) == ids(plain, split)
        by_id = {example.id: example for example in plain.examples(split)}
        for example in dataset.examples(split):
            alike = by_id[example.id]
            assert (example.messages, example.target) == (alike.messages, alike.target)
    skipped = Counter[str]()
    for reasons in dataset.card["facts"]["skipped"].values():
        skipped.update(reasons)
    assert skipped == {"other_protocol": 1, "inexpressible": 1}
