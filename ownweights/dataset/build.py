"""From a workload's records to a sealed dataset: select, split, remove duplicates, check, write.

In: records in any order. Out: `.own/dataset/<id>/` with train, develop, certify and test as
canonical JSON lines, `removed.jsonl`, and the card. Invariants: the same records give the same id
in any order (test_build_dataset_always_same_id_in_any_order); no unit is in two splits
(test_build_dataset_never_splits_a_unit); no studied question is like a held-out one
(test_build_dataset_matches_brute_force_on_leaks); a teacher whose terms deny training is refused
before anything is written (test_build_dataset_refuses_denied_teacher).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ownweights.core.artefact import canonical_json, draft_folder, hash_json, seal
from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.dataset.dedupe import HELD_OUT, REASONS, STUDIED, Removed, remove_duplicates
from ownweights.dataset.example import Example
from ownweights.dataset.load import Dataset, split_file
from ownweights.dataset.options import DatasetOptions
from ownweights.dataset.prune import PruneRule, apply_prune, find_prune
from ownweights.dataset.select import ANSWERED, skip_reason
from ownweights.dataset.split import SPLITS, hash_fraction, split_of
from ownweights.dataset.unit import SplitBy, choose_split_by, unit_of
from ownweights.lineage import TeacherUse, check_teachers
from ownweights.traffic.record import Record

Progress = Callable[[str, int, int], None]

REMOVED_FILE = "removed.jsonl"
MUCH_REMOVED_FRAC = 0.25


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The records of a workload, sorted into those to study and those skipped."""

    split_by: SplitBy
    usable: dict[str, Record]  # example id → record, in hash order
    skipped: dict[str, Counter[str]]  # split → reason → count


def build_dataset(
    records: Iterable[Record],
    project: Project,
    *,
    workload: str,
    options: DatasetOptions | None = None,
    on_progress: Progress | None = None,
) -> Dataset:
    """Build and seal the dataset of one workload; the same records and options give the same id.

    Raises: TermsRefused for a denied teacher, InputError when nothing can be studied
    """
    options = options or DatasetOptions()
    report = on_progress or _silent
    chosen = _choose(records, workload, options, report)
    rule = find_prune(
        [record.request["messages"] for record in chosen.usable.values()], options.prune_system
    )
    report("split", 0, len(chosen.usable))
    whole = _split(chosen, rule, options)
    report("compare", 0, len(chosen.usable))
    splits, removed = remove_duplicates(whole, options.near_dup_jaccard)
    uses = _check_teachers(splits, chosen, options)
    identity = {
        "workload": workload,
        "options": options.to_json(),
        "split_by": chosen.split_by.name,
        "prune": rule.to_json() if rule else None,
    }
    facts = _facts(chosen, splits, removed, uses)
    report("write", 0, len(chosen.usable))
    with draft_folder(project.kind_dir("dataset")) as draft:
        _write(draft, splits, removed)
        return Dataset.of(seal(draft, "dataset", identity=identity, facts=facts))


def _choose(
    records: Iterable[Record], workload: str, options: DatasetOptions, report: Progress
) -> _Chosen:
    ours: list[Record] = []
    for num_read, record in enumerate(records, 1):
        if record.workload == workload:
            ours.append(record)
        if num_read % 1000 == 0:
            report("read", num_read, 0)
    if not ours:
        raise InputError(
            f"there is no record of workload {workload!r}", hint="`own traffic stats` lists them"
        )
    split_by = choose_split_by(ours, options.split_by)
    usable: list[Record] = []
    skipped: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for record in ours:
        reason = skip_reason(record, options.max_message_bytes)
        if reason is None:
            usable.append(record)
        else:
            skipped[_split_of(record, split_by.name, options)][reason] += 1
    if not usable:
        total = sum(skipped.values(), Counter[str]())
        listing = ", ".join(f"{reason} {count}" for reason, count in total.most_common())
        raise InputError(
            f"none of the {len(ours)} records of {workload!r} can be studied: {listing}"
        )
    return _Chosen(split_by, _named(usable, options.salt), skipped)


def _split_of(record: Record, split_by: str, options: DatasetOptions) -> str:
    return split_of(unit_of(record, split_by), options.fractions, options.salt)


def _named(records: Sequence[Record], salt: str) -> dict[str, Record]:
    """Records by a lasting id, in an order that only the ids decide."""
    sorted_by_id = sorted(
        ((_lasting_id(record), record) for record in records),
        key=lambda pair: (hash_fraction(salt, pair[0]), pair[0], canonical_json(pair[1].response)),
    )
    named: dict[str, Record] = {}
    repeats: Counter[str] = Counter()
    for name, record in sorted_by_id:
        repeats[name] += 1
        named[name if repeats[name] == 1 else f"{name}~{repeats[name]}"] = record
    return named


def _lasting_id(record: Record) -> str:
    """The file's id, or for imports without one a hash of the content, equal in every project."""
    if record.source_id is not None:
        return record.source_id
    if record.role != "imported":
        return record.id
    return hash_json([record.request, record.answer_text])[:16]


def _split(
    chosen: _Chosen, rule: PruneRule | None, options: DatasetOptions
) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    answers: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    asked: dict[str, str] = {}
    for name, record in chosen.usable.items():
        asked[name] = _same_request(record)
        split = _split_of(record, chosen.split_by.name, options)
        answers[split, asked[name]][record.answer_text or ""] = None
    for name, record in chosen.usable.items():
        unit = unit_of(record, chosen.split_by.name)
        split = split_of(unit, options.fractions, options.salt)
        target = record.answer_text or ""
        others = [text for text in answers[split, asked[name]] if text != target]
        splits[split].append(
            Example(
                id=name,
                unit=unit,
                request=record.request,
                messages=apply_prune(rule, record.request["messages"]),
                target=target,
                references=(target, *others),
                model=record.model,
                metadata=record.metadata,
            )
        )
    return splits


def _same_request(record: Record) -> str:
    """Two requests are the same by their messages and the form of the answer, not the sampling."""
    body = record.request
    return hash_json([body["messages"], body.get("response_format")])


def _check_teachers(
    splits: dict[str, list[Example]], chosen: _Chosen, options: DatasetOptions
) -> list[TeacherUse]:
    """Check those who answered what is studied; certify and test are only compared with."""
    studied = [chosen.usable[example.id] for split in STUDIED for example in splits[split]]
    return check_teachers(
        ((record.model, record.answered_at) for record in studied),
        allow=options.allow_teachers,
        declared=options.declared_terms,
    )


def _facts(
    chosen: _Chosen,
    splits: dict[str, list[Example]],
    removed: Sequence[Removed],
    uses: Sequence[TeacherUse],
) -> dict[str, Any]:
    counts = {split: len(examples) for split, examples in splits.items()}
    lost: dict[str, Counter[str]] = {split: Counter() for split in STUDIED}
    for one in removed:
        lost[one.split][one.reason] += 1
    source = hashlib.sha256("\n".join(sorted(chosen.usable)).encode("utf-8", "surrogatepass"))
    moments = [record.at for record in chosen.usable.values()]
    return {
        "counts": counts,
        "units": {split: len({e.unit for e in examples}) for split, examples in splits.items()},
        "split_by_reason": chosen.split_by.reason,
        "removed": {s: {r: lost[s][r] for r in REASONS} for s in STUDIED},
        "skipped": {split: dict(sorted(c.items())) for split, c in chosen.skipped.items()},
        "without_answer": {
            split: sum(chosen.skipped[split][reason] for reason in ANSWERED) for split in HELD_OUT
        },
        "teachers": [use.to_json() for use in uses],
        "prompt_hashes": sorted({record.prompt_hash for record in chosen.usable.values()}),
        "records": {
            "num": len(chosen.usable),
            "ids_sha256": source.hexdigest(),
            "first_at": min(moments),
            "last_at": max(moments),
        },
        "warnings": _warnings(counts, lost, uses),
    }


def _warnings(
    counts: dict[str, int], lost: dict[str, Counter[str]], uses: Sequence[TeacherUse]
) -> list[str]:
    warnings = [use.warning for use in uses if use.warning]
    warnings += [f"the {split} split is empty" for split, count in counts.items() if not count]
    for split in STUDIED:
        num_lost = lost[split]["near_held_out"] + lost[split]["same_as_held_out"]
        before = counts[split] + lost[split].total()
        if before and num_lost > MUCH_REMOVED_FRAC * before:
            warnings.append(
                f"{num_lost} of {before} {split} examples are like a held-out one and were removed"
            )
    return warnings


def _write(draft: Path, splits: dict[str, list[Example]], removed: Sequence[Removed]) -> None:
    for split, examples in splits.items():
        _write_lines(draft / split_file(split), (example.to_json() for example in examples))
    _write_lines(draft / REMOVED_FILE, (asdict(one) for one in removed))


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(canonical_json(line) + b"\n" for line in lines)


def _silent(stage: str, done: int, total: int) -> None:
    pass
