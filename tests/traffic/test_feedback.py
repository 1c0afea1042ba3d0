"""What callers say of answers: four kinds, kept beside the records."""

from __future__ import annotations

from typing import Any

import pytest

from ownweights.traffic import TrafficStore
from ownweights.traffic.feedback import FeedbackFault, feedback_of, keep_feedback, parse_feedback
from tests.traffic.samples import make


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"value": True}, "boolean"),
        ({"value": 0}, "number"),
        ({"value": -1.5}, "number"),
        ({"comment": "späť 👎"}, "comment"),
        ({"demonstration": "42"}, "demonstration"),
        ({"demonstration": {"role": "assistant", "content": "42"}}, "demonstration"),
    ],
)
def test_feedback_is_kept_beside_the_record(
    store: TrafficStore, said: dict[str, Any], kind: str
) -> None:
    record = make()
    store.add([record])
    for target in ({"request_id": record.id}, {"session": "s"}):
        one = parse_feedback({**target, **said, "name": "good"})
        keep_feedback(store.database, one)
        keep_feedback(store.database, again := parse_feedback({**target, **said}))
        assert (one.kind, one.value) == (kind, next(iter(said.values())))
        assert feedback_of(store.database, **target) == [one, again]
    assert list(store.records()) == [record]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"value": True}, "request_id"),
        ({"request_id": "a", "session": "b", "value": True}, "request_id"),
        ({"request_id": "a"}, "value"),
        ({"request_id": "a", "value": True, "comment": "x"}, "value"),
        ({"request_id": "a", "value": "yes"}, "value"),
        ({"request_id": "a", "value": float("nan")}, "value"),
        ({"request_id": "a", "value": []}, "value"),
        ({"request_id": "a", "comment": 5}, "comment"),
        ({"request_id": "a", "comment": "  "}, "comment"),
        ({"request_id": "a", "comment": "x" * 300_000}, "comment"),
        ({"request_id": "a", "demonstration": {"role": "user", "content": "x"}}, "demonstration"),
        ({"request_id": "a", "demonstration": {"role": "assistant"}}, "demonstration"),
        ({"request_id": 5, "value": True}, "request_id"),
        ({"request_id": "a\nb", "value": True}, "request_id"),
        ({"session": "s" * 201, "value": True}, "session"),
        ({"request_id": "a", "value": True, "name": ""}, "name"),
        ({"request_id": "a", "value": True, "score": 1}, "score"),
    ],
)
def test_parse_feedback_refuses(body: dict[str, Any], param: str) -> None:
    with pytest.raises(FeedbackFault) as caught:
        parse_feedback(body)
    assert caught.value.param == param
