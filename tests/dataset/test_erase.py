"""Erased records are in no dataset, and nobody else's examples change."""

from __future__ import annotations

import pytest

from ownweights.core.artefact import Artefact
from ownweights.core.project import Project
from ownweights.core.tombstone import erased_lines
from ownweights.dataset import Dataset, load_dataset
from ownweights.dataset.erase import ERASED_NAME, Gone, erase_examples
from ownweights.dataset.split import SPLITS
from ownweights.traffic import Record
from tests.dataset.records import built, many, record


def gone_of(records: list[Record]) -> dict[str, Gone]:
    gone = Gone()
    for one in records:
        gone.add(one.source_id or one.id, one)
    return {"w": gone}


def examples(dataset: Dataset) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {e.id: (s, e.references) for s in SPLITS for e in dataset.examples(s)}


def test_erase_examples_takes_out_every_one(project: Project) -> None:
    records = many(60)
    dataset = built(project, records)
    before = examples(dataset)
    erased = [one for n, one in enumerate(records) if n % 4 == 0]
    (report,) = erase_examples(project, gone_of(erased))
    found = load_dataset(project, dataset.id, verify=True)
    assert found.id == dataset.id
    after = examples(found)
    assert after == {k: v for k, v in before.items() if k not in {r.source_id for r in erased}}
    assert sum(report.counts.values()) == 15
    assert report.studied == report.counts["train"] + report.counts["develop"]
    text = b"".join(path.read_bytes() for path in dataset.path.iterdir()).decode()
    for one in erased:
        assert str(one.request["messages"][-1]["content"]) not in text
        assert f'"{one.source_id}"' not in text


def test_erase_examples_of_another_workload_changes_nothing(project: Project) -> None:
    dataset = built(project, many(20))
    before = {path.name: path.read_bytes() for path in dataset.path.iterdir()}
    assert erase_examples(project, {"other": gone_of(many(20))["w"]}) == []
    assert {path.name: path.read_bytes() for path in dataset.path.iterdir()} == before


def test_erase_examples_dry_run_changes_nothing(project: Project) -> None:
    dataset = built(project, many(20))
    before = {path.name: path.read_bytes() for path in dataset.path.iterdir()}
    (report,) = erase_examples(project, gone_of(many(5)), dry_run=True)
    assert sum(report.counts.values()) == 5
    assert {path.name: path.read_bytes() for path in dataset.path.iterdir()} == before


@pytest.mark.parametrize("is_named_only", [True, False])
def test_erase_examples_takes_its_answer_from_the_references_of_others(
    project: Project, is_named_only: bool
) -> None:
    twins = [record("the same question", f"reply {n}", id=f"t{n}") for n in range(3)]
    dataset = built(project, [*twins, *many(30)])
    held = {name: refs for name, (_, refs) in examples(dataset).items() if name.startswith("t")}
    assert all(len(refs) == 3 for refs in held.values())
    erased = gone_of(twins[:1])
    if is_named_only:  # its body was pruned before
        erased["w"].answers.clear()
    erase_examples(project, erased)
    after = {name: refs for name, (_, refs) in examples(dataset).items() if name.startswith("t")}
    assert "t0" not in after
    assert all(set(refs) == {"reply 1", "reply 2"} for refs in after.values())
    assert load_dataset(project, dataset.id, verify=True).id == dataset.id


def test_erase_examples_keeps_an_answer_of_another(project: Project) -> None:
    twins = [record("the same question", "yes", id="a"), record("the same question", "yes", id="b"),
             record("the same question", "no", id="c")]  # fmt: skip
    dataset = built(project, [*twins, *many(30)])
    kept = {name for name in examples(dataset) if name in "abc"}
    erased = next(one for one in twins if one.source_id in kept and one.source_id != "c")
    others = {e for e in kept if e not in ("c", erased.source_id)}
    erase_examples(project, gone_of([erased]))
    after = examples(dataset)
    assert erased.source_id not in after
    if others:  # the split keeps duplicates: another record gave this answer too
        assert "yes" in after["c"][1]


def test_erase_examples_clears_the_list_of_what_was_removed(project: Project) -> None:
    records = [*many(40), *(record(f"{r.request['messages'][-1]['content']}", r.answer_text,
                                   id=f"again-{r.source_id}") for r in many(40))]  # fmt: skip
    dataset = built(project, records)
    removed = dataset.removed()
    assert removed
    row = removed[0]
    by_id = {r.source_id: r for r in records}
    erase_examples(project, gone_of([by_id[row["id"]]]))
    assert row["id"] not in {one["id"] for one in dataset.removed()}
    other = next(one for one in dataset.removed())
    erase_examples(project, gone_of([by_id[other["like"]]]))
    found = {one["id"]: one["like"] for one in dataset.removed()}
    assert found[other["id"]] == ERASED_NAME
    assert load_dataset(project, dataset.id, verify=True).id == dataset.id


def test_erase_examples_again_finds_nothing(project: Project) -> None:
    dataset = built(project, many(30))
    erase_examples(project, gone_of(many(10)))
    lines = erased_lines(dataset.path)
    assert erase_examples(project, gone_of(many(10))) == []
    assert erased_lines(dataset.path) == lines


def test_erase_examples_tells_of_what_it_cannot_read(project: Project) -> None:
    dataset = built(project, many(20))
    artefact = Artefact("dataset", dataset.id, dataset.path, dataset.card)
    (artefact.path / "card.json").write_text("{")
    told: dict[str, str] = {}
    assert erase_examples(project, gone_of(many(5)), told.__setitem__) == []
    assert list(told) == [dataset.id]


def test_gone_has_names_that_were_there_twice() -> None:
    gone = Gone({"a", "b~1"})
    assert [gone.has(name) for name in ("a", "a~1", "a~12", "b~1", "b", "a~x", "aa", None)] == [
        True, True, True, True, False, False, False, False
    ]  # fmt: skip
