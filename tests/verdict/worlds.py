"""Made-up datasets and students for verdict tests: small, seeded, without a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ownweights.core.chat import ChatRequest, Completion, Features
from tests.fakes import ScriptedTeacher, last_user_text


@dataclass(frozen=True)
class FakeExample:
    """What a dataset hands to a verdict."""

    id: str
    unit: str
    request: dict[str, Any]
    messages: list[dict[str, Any]]
    target: str
    references: tuple[str, ...]
    model: str = "rented-1"
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class FakeDataset:
    """Examples by split, with the parts of a card that a verdict reads."""

    splits: dict[str, list[FakeExample]]
    id: str = "dataset00001"

    @property
    def card(self) -> dict[str, Any]:
        units = {split: len({e.unit for e in found}) for split, found in self.splits.items()}
        records = {"num": 10 * sum(units.values())}
        return {
            "identity": {"workload": "tickets", "split_by": "prompt"},
            "facts": {
                "units": units, "records": records, "period": [0.0, 86_400.0], "undated": 0,
                "skipped": {"certify": {}},
            },
        }  # fmt: skip

    def examples(self, split: str) -> list[FakeExample]:
        return self.splits.get(split, [])


def example(number: int, split: str, target: str | None = None) -> FakeExample:
    prompt = f"{split} question {number}"
    answer = target or json.dumps({"intent": f"i{number % 3}", "n": number})
    messages = [{"role": "user", "content": prompt}]
    request = {
        "model": "gpt",
        "messages": [{"role": "system", "content": "Be brief"}, *messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    unit = f"prompt:{prompt}"
    return FakeExample(f"{split}-{number}", unit, request, messages, answer, (answer,))


def dataset(num_develop: int = 300, num_certify: int = 300, **known: Any) -> FakeDataset:
    sizes = {"develop": num_develop, "certify": num_certify}
    splits = {s: [example(i, s) for i in range(n)] for s, n in sizes.items()}
    return FakeDataset(splits, **known)


def features(sureness: float, length: int = 5) -> Features:
    """An answer whose every token had the log-probability -sureness, best by that margin."""
    logprobs = np.full(length, -abs(sureness), np.float32)
    return Features(np.arange(length, dtype=np.int32), logprobs, np.full(length, 1.0, np.float32))


def answer(text: str, sureness: float = 0.1, finish_reason: str = "stop") -> Completion:
    return Completion(text, finish_reason, features=features(sureness))


def student(data: FakeDataset, *, harm_frac: float = 0.2, seed: int = 0) -> ScriptedTeacher:
    """A student that is wrong on `harm_frac` of the prompts, and less sure of those."""
    rng = np.random.default_rng(seed)
    script: dict[str, Completion] = {}
    for one in [*data.splits["develop"], *data.splits["certify"]]:
        is_wrong = rng.random() < harm_frac
        sureness = rng.gamma(4.0, 0.5) if is_wrong else rng.gamma(2.0, 0.1)
        text = '{"intent": "wrong"}' if is_wrong else one.target
        script[one.messages[-1]["content"]] = answer(text, float(sureness))

    def look_up(request: ChatRequest) -> Completion:
        return script[last_user_text(request)]

    return ScriptedTeacher(look_up)
