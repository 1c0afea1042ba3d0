"""From a workload's records to a sealed dataset: select, split, remove duplicates, check, write.

In: records in any order. Out: `.own/dataset/<id>/` with train, develop, certify and test as
canonical JSON lines, `removed.jsonl`, and the card. Invariants: the same records give the same id
in any order (test_build_dataset_always_same_id_in_any_order); no unit is in two splits
(test_build_dataset_never_splits_a_unit); no studied question is like a held-out one
(test_build_dataset_matches_brute_force_on_leaks); a teacher whose terms deny training is refused
before anything is written (test_build_dataset_refuses_denied_teacher).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ownweights.core.artefact import canonical_json, draft_folder, seal
from ownweights.core.errors import InputError
from ownweights.core.project import Project
from ownweights.dataset.canary import make_canaries, plant_canaries
from ownweights.dataset.card import dataset_facts
from ownweights.dataset.dedupe import STUDIED, Removed, remove_duplicates
from ownweights.dataset.example import Example
from ownweights.dataset.load import REMOVED_FILE, Dataset, split_file
from ownweights.dataset.logprobs import logprobs_of
from ownweights.dataset.options import DatasetOptions
from ownweights.dataset.prompt import request_key
from ownweights.dataset.prune import PruneRule, apply_prune, find_prune
from ownweights.dataset.select import HELD_OUT_ONLY, answered_reason, in_chat, skip_reason
from ownweights.dataset.split import SPLITS, hash_fraction, split_of
from ownweights.dataset.unit import SplitBy, choose_split_by, unit_of
from ownweights.lineage import TeacherUse, check_teachers
from ownweights.traffic.record import Record

Progress = Callable[[float, float | None, str], None]  # (done, total, stage)


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that some split keeps; `reason` says why it is kept for judging alone."""

    name: str
    record: Record
    unit: str
    split: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A workload's records in their splits, and how many of each split are in none, by reason."""

    split_by: SplitBy
    kept: list[Kept]
    skipped: dict[str, Counter[str]]


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
    chosen = _choose(_of_workload(records, workload, report), options)
    total = len(chosen.kept)
    rule = find_prune([one.record.request["messages"] for one in chosen.kept], options.prune_system)
    report(0, total, "comparing")
    splits, removed = remove_duplicates(_examples(chosen.kept, rule), options.near_dup_jaccard)
    uses = _check_teachers(splits, chosen, options)
    identity = {
        "workload": workload,
        "split_by": chosen.split_by.name,
        "fractions": list(options.fractions),
        "salt": options.salt,
        "prune": rule.to_json() if rule else None,
        "options": options.to_json(),
    }
    facts = dataset_facts(
        [(one.name, one.record) for one in chosen.kept], splits, removed, uses, options
    )
    facts["split_by_reason"] = chosen.split_by.reason
    facts["skipped"] = _counted(chosen.skipped)
    facts["held_out_only"] = _held_out_only(chosen.kept)
    if options.canaries:
        splits = _planted(splits, facts, workload, options)
    report(total, total, "writing")
    with draft_folder(project.kind_dir("dataset")) as draft:
        _write(draft, splits, removed)
        return Dataset.of(seal(draft, "dataset", identity=identity, facts=facts))


def _planted(
    splits: dict[str, list[Example]], facts: dict[str, Any], workload: str, options: DatasetOptions
) -> dict[str, list[Example]]:
    """The splits with canaries in train; the card is told which, and how many examples they are."""
    canaries = make_canaries(options.canaries, f"{workload}\x1f{options.salt}")
    train = plant_canaries(splits["train"], canaries, options.salt)
    facts["canaries"] = [one.to_json() for one in canaries]
    facts["counts"]["train"] = len(train)
    return {**splits, "train": train}


def _of_workload(records: Iterable[Record], workload: str, report: Progress) -> list[Record]:
    ours: list[Record] = []
    for record in records:
        if record.workload == workload:
            ours.append(in_chat(record))
            if len(ours) % 1000 == 0:
                report(len(ours), None, "reading")
    if not ours:
        raise InputError(
            f"there is no record of workload {workload!r}", hint="`own traffic stats` lists them"
        )
    return ours


def _choose(records: Sequence[Record], options: DatasetOptions) -> Chosen:
    split_by = choose_split_by(records, options.split_by)
    kept: list[Kept] = []
    skipped: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for name, record in _named(records, options.salt):
        unit = unit_of(record, split_by.name)
        split = split_of(unit, options.fractions, options.salt)
        reason = skip_reason(record, options.max_message_bytes)
        if reason is None or (reason in HELD_OUT_ONLY and split not in STUDIED):
            kept.append(Kept(name, record, unit, split, reason))
        else:
            skipped[split][reason] += 1
    if not any(one.reason is None for one in kept):
        total = sum(skipped.values(), Counter(one.reason for one in kept))
        listing = ", ".join(f"{reason} {count}" for reason, count in total.most_common())
        raise InputError(f"none of the {len(records)} records can be studied: {listing}")
    return Chosen(split_by, kept, skipped)


def _named(records: Sequence[Record], salt: str) -> list[tuple[str, Record]]:
    """Records with their lasting ids, in an order that ids and contents alone decide.

    An id is the file's own where it gave one; an import gives the same ids in every project.
    """
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.source_id or record.id].append(record)
    named: list[tuple[str, Record]] = []
    for name in sorted(groups, key=lambda name: (hash_fraction(salt, name), name)):
        group = groups[name]
        if len(group) > 1:
            group.sort(key=lambda r: (canonical_json(r.request), canonical_json(r.response)))
        named += [(f"{name}~{k}" if k else name, record) for k, record in enumerate(group)]
    return named


def _examples(kept: Sequence[Kept], rule: PruneRule | None) -> dict[str, list[Example]]:
    answers: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    asked = [request_key(one.record.request) for one in kept]
    for one, request in zip(kept, asked, strict=True):
        if (text := _answer(one.record)) is not None:
            answers[one.split, request][text] = None
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for one, request in zip(kept, asked, strict=True):
        target = _answer(one.record)
        known = [] if target is None else [target, *answers[one.split, request]]
        splits[one.split].append(
            Example(
                id=one.name,
                unit=one.unit,
                request=one.record.request,
                messages=apply_prune(rule, one.record.request["messages"]),
                target=target or "",
                references=tuple(dict.fromkeys(known)),
                model=one.record.model,
                metadata=one.record.metadata,
                logprobs=logprobs_of(one.record.response, target)
                if target and one.split in STUDIED
                else (),
            )
        )
    return splits


def _answer(record: Record) -> str | None:
    return None if answered_reason(record) else record.answer_text


def _check_teachers(
    splits: dict[str, list[Example]], chosen: Chosen, options: DatasetOptions
) -> list[TeacherUse]:
    """Check those who answered what is studied; certify and test are only compared with."""
    studied = {example.id for split in STUDIED for example in splits[split]}
    return check_teachers(
        ((one.record.model, one.record.answered_at) for one in chosen.kept if one.name in studied),
        allow=options.allow_teachers,
        declared=options.declared_terms,
    )


def _held_out_only(kept: Sequence[Kept]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS if split not in STUDIED}
    for one in kept:
        if one.reason is not None:
            counts[one.split][one.reason] += 1
    return _counted(counts)


def _counted(counts: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {split: dict(sorted(counter.items())) for split, counter in counts.items()}


def _write(draft: Path, splits: dict[str, list[Example]], removed: Sequence[Removed]) -> None:
    for split, examples in splits.items():
        _write_lines(draft / split_file(split), (example.to_json() for example in examples))
    _write_lines(draft / REMOVED_FILE, (asdict(one) for one in removed))


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    try:
        with path.open("wb") as file:
            file.writelines(canonical_json(line) + b"\n" for line in lines)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which file it was
        raise


def _silent(done: float, total: float | None, stage: str) -> None:
    pass
