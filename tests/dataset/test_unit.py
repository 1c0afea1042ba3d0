"""What is split as one, and who chooses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.errors import InputError
from ownweights.dataset.unit import SplitBy, choose_split_by, unit_of
from tests.dataset.records import record

WITH_TASK = {"metadata": {"task_id": 3}, "session": "s"}
WITH_SESSION = {"session": "s"}
SOME = "some records have a session, and some have none"


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ([WITH_TASK, WITH_TASK], SplitBy("meta:task_id", "every record has a task_id")),
        ([WITH_TASK, WITH_SESSION], SplitBy("session", "every record has a session")),
        ([WITH_SESSION, {}], SplitBy("session-or-prompt", SOME)),
        ([WITH_TASK, {}], SplitBy("session-or-prompt", SOME)),
        ([{"session": ""}], SplitBy("prompt", "no record has a session")),
        ([], SplitBy("prompt", "no record has a session")),
    ],
)
def test_choose_split_by_auto_takes_the_widest_unit(
    each: list[dict[str, object]], expected: SplitBy
) -> None:
    assert choose_split_by([record(**fields) for fields in each], "auto") == expected


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("prompt", "prompt"),
        ("session", "session"),
        ("session-or-prompt", "session-or-prompt"),
        ("meta:customer", "meta:customer"),
        ("customer", "meta:customer"),
    ],
)
def test_choose_split_by_does_as_asked(asked: str, name: str) -> None:
    assert choose_split_by([], asked) == SplitBy(name, "as asked")


def test_unit_of_spells_each_kind() -> None:
    one = record("Play it!", session="s-1", metadata={"task_id": 7, "who": "ann", "at": [1, 2]})
    assert unit_of(one, "prompt") == "prompt:play it"
    assert unit_of(one, "session") == "session:s-1"
    assert unit_of(one, "session-or-prompt") == "session:s-1"
    assert unit_of(record("Play it!"), "session-or-prompt") == "prompt:play it"
    assert unit_of(one, "meta:task_id") == "meta:task_id:7"
    assert unit_of(one, "meta:who") == "meta:who:ann"
    assert unit_of(one, "meta:at") == "meta:at:[1, 2]"


def test_unit_of_a_conversation_is_its_first_question() -> None:
    talk = [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and now?"},
    ]
    assert unit_of(record(talk), "prompt") == unit_of(record("hello THERE"), "prompt")


def test_unit_of_without_words_is_the_text_itself() -> None:
    assert unit_of(record("👍"), "prompt") == "prompt:👍"


SPLIT_BYS = ["prompt", "session", "session-or-prompt", "meta:k"]


@given(st.text(), st.text(max_size=5), st.sampled_from(SPLIT_BYS))
def test_unit_of_depends_on_its_record_alone(text: str, value: str, split_by: str) -> None:
    def unit(says: str) -> str:
        fields = {"session": value or "s", "metadata": {"k": value}}
        return unit_of(record(text, says, id=says, **fields), split_by)

    assert unit("one answer") == unit("another")


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["", "a", "b"])), max_size=12))
def test_unit_of_mixed_traffic_is_each_records_own(known: list[tuple[str, str]]) -> None:
    """Adding records of the other kind moves none: not by unit, and so not by split."""
    records = [record(text, session=session) for text, session in known]
    by = choose_split_by(records, "auto").name
    for one in records:
        alike = [other for other in records if bool(other.session) == bool(one.session)]
        assert unit_of(one, by) == unit_of(one, choose_split_by(alike, "auto").name)


@pytest.mark.parametrize(
    ("split_by", "lack"),
    [("session", "no session, so it cannot be split by 'session'"),
     ("meta:who", "no metadata 'who', so it cannot be split by 'meta:who'")],
)  # fmt: skip
def test_unit_of_refuses_a_record_that_lacks_it(split_by: str, lack: str) -> None:
    with pytest.raises(
        InputError, match=f"workload 'w', record r-9: the record has {lack}"
    ) as caught:
        unit_of(record(id="r-9"), split_by)
    hint = "split by something that every record has, or by "
    known = {"session": "'session-or-prompt', or by 'prompt'", "meta:who": "'prompt'"}
    assert caught.value.hint == hint + known[split_by]
