"""Small records, workloads of them, and the real ones, for the tests of datasets."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ownweights.core.project import Project
from ownweights.dataset import Dataset, DatasetOptions, build_dataset
from ownweights.dataset.example import Example
from ownweights.teacher.dialect import messages_answer, messages_request
from ownweights.traffic import Record, make_record

SYSTEM = "Answer in one word."
PERSON = "labelled-by-people"
LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


def body(asks: str | list[Any] = "hello", *, system: str | None = SYSTEM, **fields: Any) -> Any:
    """A request; `asks` may be a text, or messages that follow the system prompt."""
    said = [{"role": "user", "content": asks}] if isinstance(asks, str) else asks
    head = [] if system is None else [{"role": "system", "content": system}]
    return {"model": "big", "messages": [*head, *said], **fields}


def answer(text: Any = "hi", *, model: str = PERSON, finish: str = "stop", **message: Any) -> Any:
    """A response."""
    said = {"role": "assistant", "content": text, **message}
    return {"model": model, "choices": [{"index": 0, "message": said, "finish_reason": finish}]}


def record(
    asks: str | list[Any] = "hello", says: Any = "hi", *, id: str | None = None, **fields: Any
) -> Record:
    """A record of the workload `w`, answered by people unless a `model` is given."""
    finish, model = fields.pop("finish", "stop"), fields.pop("model", PERSON)
    request = fields.pop("request", None) or body(asks)
    response = fields.pop("response", answer(says, model=model, finish=finish))
    protocol = fields.pop("protocol", "chat")
    given: dict[str, Any] = {"role": "imported", "workload": "w", "at": 1.0, **fields}
    return replace(make_record(request, response, **given), source_id=id, protocol=protocol)


def phrase(number: int) -> str:
    """A question of its own, near no other one."""
    digits = hashlib.sha256(str(number).encode()).hexdigest().translate(LETTERS)
    return " ".join(digits[i : i + 5] for i in range(0, 25, 5))


def many(count: int, **fields: Any) -> list[Record]:
    """Records with ids, unlike questions and unlike answers."""
    return [record(phrase(i), f"reply {i}", id=f"r{i}", **fields) for i in range(count)]


def built(project: Project, records: Sequence[Record], **options: Any) -> Dataset:
    """The dataset of the workload `w`."""
    return build_dataset(records, project, workload="w", options=DatasetOptions(**options))


def example(asks: str, says: str = "hi", *, id: str, **fields: Any) -> Example:
    """An example as the builder makes them."""
    request = body(asks)
    given: dict[str, Any] = {
        "unit": f"prompt:{asks}", "request": request, "messages": request["messages"],
        "target": says, "references": (says,), "model": PERSON, "metadata": {}, **fields,
    }  # fmt: skip
    return Example(id=id, **given)


def in_messages(one: Record) -> Record:
    """The record as it would be, had its exchange been spoken in Messages."""
    request = messages_request(one.request, max_tokens=99).body
    response = messages_answer({"id": "c", **(one.response or {})})
    return replace(one, protocol="messages", request=request, response=response)


@cache
def real_records(folder: Path, name: str) -> tuple[Record, ...]:
    """The records of a file of public traffic."""
    found: list[Record] = []
    with gzip.open(folder / "traffic" / f"{name}.jsonl.gz", "rb") as file:
        for text in file:
            line = json.loads(text)
            metadata = line["metadata"]
            made = make_record(
                line["request"], line["response"], role="imported", at=1.0, metadata=metadata,
                workload=metadata.get("workload"), session=metadata.get("session"),
            )  # fmt: skip
            found.append(replace(made, source_id=line["id"]))
    return tuple(found)
