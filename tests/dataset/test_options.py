"""Choices that cannot be are refused; those that mean the same name the same dataset."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.core.artefact import canonical_json
from ownweights.core.errors import UsageError
from ownweights.dataset.options import DatasetOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split_by": ""}, "split_by is empty"),
        ({"fractions": (0.5, 0.5)}, r"fractions needs four numbers ≥ 0 \(train, develop, certify"),
        ({"fractions": (1.2, -0.2, 0, 0)}, "fractions needs four numbers ≥ 0"),
        ({"fractions": (0.5, 0.1, 0.1, 0.1)}, "fractions add up to 0.8, expected 1"),
        ({"near_dup_jaccard": 0}, r"near_dup_jaccard is 0, expected \(0, 1\]"),
        ({"near_dup_jaccard": 1.5}, "near_dup_jaccard is 1.5"),
        ({"max_message_bytes": 0}, "max_message_bytes is 0, expected ≥ 1"),
        ({"canaries": -1}, "canaries is -1, expected ≥ 0"),
    ],
)
def test_options_refuse_what_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DatasetOptions(**wrong)


def test_options_name_a_set_by_its_members() -> None:
    one = DatasetOptions(allow_teachers=("b", "a", "b"))
    assert one.to_json() == DatasetOptions(allow_teachers=("a", "b")).to_json()


def test_options_are_json_with_every_field() -> None:
    told = DatasetOptions(canaries=1).to_json()
    assert set(told) == set(DatasetOptions.__slots__)
    assert canonical_json(told)
