"""Whatever the gateway recorded: a dataset counts it or studies it, and never fails on it."""

from __future__ import annotations

from pathlib import Path

from ownweights.core.project import Project
from ownweights.dataset import SPLITS, export_split
from ownweights.dataset.select import HELD_OUT_ONLY, LOST, skip_reason
from ownweights.traffic import TrafficStore, import_file
from ownweights.traffic.chat import messages_fault
from ownweights.traffic.exporter import export_file
from ownweights.verdict.slices import slice_keys
from tests.dataset.records import built, many
from tests.traffic.odd import odd_records


def test_build_dataset_counts_every_odd_body(project: Project, tmp_path: Path) -> None:
    records = [*odd_records(), *many(40)]
    dataset = built(project, records, split_by="prompt")
    facts = dataset.card["facts"]
    assert facts["records"]["num"] + sum(
        sum(counts.values()) for counts in facts["skipped"].values()
    ) == len(records)
    lost = {reason for counts in facts["skipped"].values() for reason in counts}
    assert lost >= {"bad_messages", "wrong_roles", "error"}
    for split in SPLITS:
        examples = dataset.examples(split)
        assert [one.id for one in examples if messages_fault(one.request["messages"])] == []
        assert len(slice_keys(examples)) == len(examples)
        export_split(dataset, split, tmp_path / split)


def test_skip_reason_refuses_whatever_an_import_would(project: Project, tmp_path: Path) -> None:
    records = odd_records()
    export_file(records, tmp_path / "odd.jsonl", "own")
    with TrafficStore.open(project) as store:
        report = import_file(tmp_path / "odd.jsonl", store)
        taken = {record.source_id for record in store.records()}
    assert set(report.skipped) == {"bad_messages", "wrong_roles", "empty_answer"}
    reasons = {str(record.source_id): skip_reason(record) for record in records}
    assert {reason for reason in reasons.values() if reason} <= {*LOST, *HELD_OUT_ONLY}
    assert [name for name, reason in reasons.items() if name not in taken and reason is None] == []
