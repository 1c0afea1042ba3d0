"""Pairs of answers to one request, of which one is better: what preferences are learned from.

In: a dataset, its workload's records, what was said of them, and answers that a verdict kept. Out:
`Pair`s in the dataset's own splits:

    demonstration  how an answer should have been, and how it was
    rating         the best-rated answer to a request, and each that was rated worse under that name
    denied         the dataset's answer to a request, and one that was rated false
    verdict        the dataset's answer, and a student's that a verdict found harmful
    file           what a file says, one JSON object a line: messages, chosen, rejected

A pair's unit decides its split by the dataset's rule, and pairs whose request is in certify or
test, or near one there, are left out (test_pairs_never_touch_held_out_requests). An answer is never
its own rival, and the same pair counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ownweights.core.artefact import hash_json
from ownweights.core.errors import InputError
from ownweights.core.jsonl import read_jsonl
from ownweights.dataset.dedupe import STUDIED, remove_duplicates
from ownweights.dataset.example import Example
from ownweights.dataset.load import Dataset
from ownweights.dataset.prompt import prompt_key, request_key
from ownweights.dataset.prune import apply_prune
from ownweights.dataset.select import in_chat, skip_reason
from ownweights.dataset.split import SPLITS, split_of
from ownweights.dataset.unit import unit_of
from ownweights.traffic.chat import messages_fault
from ownweights.traffic.feedback import Feedback
from ownweights.traffic.record import Record, make_record
from ownweights.traffic.workload import content_text

_FILE_KEYS = ("messages", "chosen", "rejected")
_PAIR_IS = "a pair is a JSON object with messages, chosen and rejected"
MIN_HARM = 0.5  # of an answer that is worse


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one request. `messages` are what the student sees of it, `source` says how it
    is known which is better."""

    id: str
    unit: str
    split: str
    request: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]]
    chosen: str
    rejected: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """The pair as a line of a file."""
        return {
            "id": self.id, "split": self.split, "source": self.source,
            "messages": list(self.request["messages"]), "chosen": self.chosen,
            "rejected": self.rejected,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """A pair before it is known where it belongs."""

    record: Record
    chosen: str
    rejected: str
    source: str


def gather_pairs(
    dataset: Dataset, records: Iterable[Record], feedback: Iterable[Feedback]
) -> list[Pair]:
    """The pairs that what callers said of a workload's answers makes, in train and develop."""
    said: defaultdict[str, list[Feedback]] = defaultdict(list)
    for one in feedback:
        if one.request_id is not None:
            said[one.request_id].append(one)
    answered = [chat for record in records if (chat := _readable(record, dataset)) is not None]
    known = {
        request_key(example.request): example.target
        for split in STUDIED
        for example in dataset.iter_examples(split)
    }
    found: list[_Found] = []
    rated: defaultdict[tuple[str, str], list[tuple[float, Record]]] = defaultdict(list)
    for record in answered:
        key, answer = request_key(record.request), record.answer_text or ""
        for one in said.get(record.id, ()):
            if one.kind == "demonstration":
                found.append(_Found(record, _shown(one.value), answer, "demonstration"))
            elif one.kind in ("boolean", "number"):
                rated[key, one.name].append((float(one.value), record))
            if one.kind == "boolean" and one.value is False and key in known:
                found.append(_Found(record, known[key], answer, "denied"))
    for group in rated.values():
        found += _of_ratings(group)
    return _placed(dataset, found)


def verdict_pairs(
    dataset: Dataset, answers: Iterable[Mapping[str, Any]], harms: Mapping[str, float | None]
) -> list[Pair]:
    """The dataset's answer against a student's that was judged harmful (half of one, or more).

    Only train and develop are looked at: what certify asks is never learned."""
    examples = {one.id: one for split in STUDIED for one in dataset.iter_examples(split)}
    splits = {one.id: split for split in STUDIED for one in dataset.iter_examples(split)}
    found: list[Pair] = []
    for answer in answers:
        example = examples.get(str(answer.get("id")))
        text, harm = answer.get("answer"), harms.get(str(answer.get("id")))
        if example is None or not isinstance(text, str) or (harm or 0.0) < MIN_HARM:
            continue
        if text.strip() and text != example.target:
            pair_id = hash_json([request_key(example.request), example.target, text])[:16]
            found.append(
                Pair(
                    pair_id, example.unit, splits[example.id], example.request,
                    example.messages, example.target, text, "verdict",
                )
            )  # fmt: skip
    return found


def read_pairs(
    dataset: Dataset, path: Path, *, on_left_out: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """The pairs of a file, in the splits that the dataset's rule gives them.

    `on_left_out` is told how many of how many are left out, where any are.
    Raises: InputError naming the line that is none, or for a file without a pair
    """
    found: list[_Found] = []
    for line in read_jsonl(path):
        where = f"{path}:{line.number}"
        if line.value is None:
            raise InputError(line.what, where=where)
        found.append(_of_line(line.value, dataset.workload, where))
    if not found:
        raise InputError("holds no pair", where=str(path), hint=_PAIR_IS)
    placed = _placed(dataset, found)
    if on_left_out is not None and len(placed) < len(found):
        on_left_out(len(found) - len(placed), len(found))
    return placed


def _of_line(value: Mapping[str, Any], workload: str, where: str) -> _Found:
    needed = [name for name in _FILE_KEYS if name not in value]
    if needed:
        raise InputError(
            f"a pair lacks {', '.join(needed)}", where=where,
            hint=_PAIR_IS,
        )  # fmt: skip
    fault = messages_fault(value["messages"])
    if fault is not None:
        raise InputError(fault.what, where=where)
    for name in ("chosen", "rejected"):
        if not isinstance(value[name], str) or not value[name].strip():
            raise InputError(f"{name} must be a text that is not empty", where=where)
    request = {"messages": value["messages"]}
    choice = {"index": 0, "message": {"role": "assistant", "content": value["rejected"]},
              "finish_reason": "stop"}  # fmt: skip
    record = make_record(request, {"choices": [choice]}, role="imported", workload=workload, at=1.0)
    record = replace(record, source_id=hash_json([value[name] for name in _FILE_KEYS])[:16])
    return _Found(record, value["chosen"], value["rejected"], "file")


def _readable(record: Record, dataset: Dataset) -> Record | None:
    """The record as a chat that could be learned from; a student's answer is as good as any."""
    if record.workload != dataset.workload:
        return None
    chat = in_chat(record)
    return chat if skip_reason(replace(chat, role="teacher")) is None else None


def _shown(value: Any) -> str:
    """The text of a demonstration; empty where it is a tool call."""
    return value if isinstance(value, str) else content_text(value.get("content"))


def _of_ratings(group: Sequence[tuple[float, Record]]) -> list[_Found]:
    """The best-rated answer against each worse one; an answer's ratings are averaged."""
    ratings: defaultdict[str, list[float]] = defaultdict(list)
    records: dict[str, Record] = {}
    for value, record in group:
        answer = record.answer_text or ""
        ratings[answer].append(value)
        records.setdefault(answer, record)
    means = {answer: sum(values) / len(values) for answer, values in ratings.items()}
    best = max(sorted(means), key=lambda answer: means[answer])
    return [
        _Found(records[answer], best, answer, "rating")
        for answer in sorted(means)
        if means[answer] < means[best]
    ]


def _placed(dataset: Dataset, found: Sequence[_Found]) -> list[Pair]:
    """The pairs of train and develop that are like no held-out request, each once."""
    identity = dataset.card["identity"]
    salt, rule = identity["salt"], dataset.prune
    by_split: dict[str, list[Example]] = {split: [] for split in SPLITS}
    made: dict[str, Pair] = {}
    for one in found:
        if not one.chosen.strip() or not one.rejected.strip() or one.chosen == one.rejected:
            continue
        unit = _unit(one.record, dataset.split_by)
        request = one.record.request
        pair_id = hash_json([request_key(request), one.chosen, one.rejected])[:16]
        if pair_id in made:
            continue
        split = split_of(unit, identity["fractions"], salt)
        messages = apply_prune(rule, request["messages"])
        made[pair_id] = Pair(
            pair_id, unit, split, request, messages, one.chosen, one.rejected, one.source
        )
        if split in STUDIED:
            by_split[split].append(_as_example(made[pair_id]))
    for split in SPLITS:
        if split not in STUDIED:
            by_split[split] = dataset.examples(split)
    options = identity["options"]
    kept, _ = remove_duplicates(by_split, options["near_dup_jaccard"])
    names = sorted(example.id for split in STUDIED for example in kept[split])
    return [made[name] for name in names]


def _unit(record: Record, split_by: str) -> str:
    """The unit of a record; of one that lacks what the dataset is split by, its prompt's."""
    try:
        return unit_of(record, split_by)
    except InputError:
        return unit_of(record, "prompt")


def _as_example(pair: Pair) -> Example:
    """The pair as what duplicates are found among: both answers are its answer."""
    return Example(
        pair.id, pair.unit, dict(pair.request), [dict(one) for one in pair.messages],
        f"{prompt_key(pair.chosen)}\x1f{prompt_key(pair.rejected)}", (), "", {},
    )  # fmt: skip
