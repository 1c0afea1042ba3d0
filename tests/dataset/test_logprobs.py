"""What a response told of its tokens: kept whole, byte for byte, or not at all."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.project import Project
from ownweights.dataset import build_dataset
from ownweights.dataset.logprobs import TokenLogprobs, as_bytes, logprobs_of
from tests.student.zoo import WORKLOAD, make_records


def entry(raw: bytes, logprob: float = -0.5, *, others: tuple[bytes, ...] = ()) -> dict[str, Any]:
    """One token as OpenAI tells it; its text is lossy where its bytes are no UTF-8."""
    tops = [{"token": o.decode("utf-8", "replace"), "bytes": list(o), "logprob": -2.0}
            for o in others]  # fmt: skip
    text = raw.decode("utf-8", "replace")
    own = {"token": text, "bytes": list(raw), "logprob": logprob}
    return {**own, "top_logprobs": [own, *tops]}


def response(*entries: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {}, "logprobs": {"content": list(entries)}}]}


@given(text=st.text(min_size=1, max_size=10), cut=st.integers(1, 5))
def test_logprobs_survive_any_cut_of_bytes(text: str, cut: int) -> None:
    raw = text.encode("utf-8", "replace")
    pieces = [raw[at : at + cut] for at in range(0, len(raw), cut)]
    found = logprobs_of(response(*map(entry, pieces)), raw.decode())
    assert [one.raw for one in found] == pieces
    again = [TokenLogprobs.from_json(one.to_json()) for one in found]
    assert again == list(found)


def test_logprobs_hold_the_chosen_token_and_its_rivals() -> None:
    (one,) = logprobs_of(response(entry(b"fox", -0.25, others=(b"owl",))), "fox")
    assert one == TokenLogprobs("fox", (("fox", -0.25), ("owl", -2.0)))
    assert as_bytes(one.token) == b"fox"


def test_logprobs_of_another_text_are_not_kept() -> None:
    """Masked, cut or joined: what is told is not what was kept."""
    assert logprobs_of(response(entry(b"fox")), "[NAME]") == ()


@pytest.mark.parametrize(
    "broken",
    [
        None, {}, {"token": "fox"}, {"token": "fox", "logprob": -1.0},
        {"token": "fox", "logprob": -1.0, "top_logprobs": []},
        {"token": "fox", "logprob": math.nan, "top_logprobs": [{"token": "fox", "logprob": -1}]},
        {"token": "fox", "logprob": 2.0, "top_logprobs": [{"token": "fox", "logprob": -1}]},
        {"token": "fox", "logprob": True, "top_logprobs": [{"token": "fox", "logprob": -1}]},
        {"token": "fox", "logprob": -1.0, "top_logprobs": ["fox"]},
        {"token": "fox", "logprob": -1.0, "bytes": [999], "top_logprobs": [{}]},
        {**entry(b"fox"), "top_logprobs": [{"token": "fox", "logprob": -1.0}] * 99},
    ],
)  # fmt: skip
def test_logprobs_that_are_malformed_are_not_kept(broken: Any) -> None:
    assert logprobs_of(response(broken), "fox") == ()


@pytest.mark.parametrize("told", [None, {}, {"content": None}, {"content": "fox"}, "fox"])
def test_logprobs_that_are_not_told_are_none(told: Any) -> None:
    assert logprobs_of({"choices": [{"message": {}, "logprobs": told}]}, "fox") == ()
    assert logprobs_of(None, "fox") == ()


def test_build_dataset_carries_logprobs_for_what_is_studied(tmp_path: Path) -> None:
    records = []
    for record in make_records():
        assert record.response is not None
        told = {"content": [entry((record.answer_text or "").encode())]}
        choice = {**record.response["choices"][0], "logprobs": told}
        records.append(replace(record, response={**record.response, "choices": [choice]}))
    plain = build_dataset(make_records(), Project(tmp_path / "plain"), workload=WORKLOAD)
    made = build_dataset(records, Project(tmp_path), workload=WORKLOAD)
    assert made.id != plain.id
    for split in ("train", "develop"):
        examples = made.examples(split)
        assert examples and all(len(one.logprobs) == 1 for one in examples)
        assert all(one.logprobs[0].token == one.target for one in examples)
        assert all("logprobs" not in one.to_json() for one in plain.examples(split))
    for split in ("certify", "test"):
        assert all(one.logprobs == () for one in made.examples(split))
