"""What is studied once, and what not at all because a held-out request is like it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownweights.dataset.dedupe import HELD_OUT, STUDIED, Removed, remove_duplicates
from ownweights.dataset.example import Example
from ownweights.dataset.normalise import jaccard, shingles
from ownweights.dataset.prompt import comparison_key
from ownweights.dataset.split import SPLITS
from tests.dataset.records import example

ASK = "play the movie schedule for great escape theatres"
NEAR = "find me the movie schedule for great escape theatres"
NEARER = "find the movie schedule for great escape theatres"


def splits(**given: Sequence[Example]) -> dict[str, list[Example]]:
    return {split: list(given.get(split, ())) for split in SPLITS}


def reasons(removed: Sequence[Removed]) -> list[tuple[str, str, str, str]]:
    return [(one.id, one.split, one.reason, one.like) for one in removed]


def ids(examples: Sequence[Example]) -> list[str]:
    return [one.id for one in examples]


def test_near_here_is_near() -> None:
    """The texts of these tests are what they claim to be."""
    assert jaccard(shingles(NEAR), shingles(NEARER)) >= 0.8
    assert jaccard(shingles(ASK), shingles(NEAR)) < 0.8


@pytest.mark.parametrize("held", HELD_OUT)
@pytest.mark.parametrize("studied", STUDIED)
@pytest.mark.parametrize(
    ("asks", "reason"), [(NEARER, "near_held_out"), ("find ME the movie schedule for great escape"
                                                     " theatres!", "same_as_held_out")]
)  # fmt: skip
def test_remove_duplicates_across_the_border_whatever_the_answer(
    held: str, studied: str, asks: str, reason: str
) -> None:
    given = splits(**{
        held: [example(NEAR, "a", id="h")],
        studied: [example(asks, "b", id="s"), example("wake me up", "c", id="t")],
    })  # fmt: skip
    kept, removed = remove_duplicates(given)
    assert reasons(removed) == [("s", studied, reason, "h")]
    assert ids(kept[studied]) == ["t"]


def test_remove_duplicates_tells_what_was_asked() -> None:
    given = splits(test=[example(NEAR, id="h")], train=[example(f"{NEAR}!", id="s")])
    _, (removed,) = remove_duplicates(given)
    assert removed.asks == NEAR


def test_remove_duplicates_keeps_the_first_of_equals() -> None:
    given = splits(train=[example(NEAR, id="a"), example(NEAR, id="b"), example(NEARER, id="c")])
    kept, removed = remove_duplicates(given)
    assert ids(kept["train"]) == ["a"]
    assert reasons(removed) == [("b", "train", "repeat", "a"), ("c", "train", "near_repeat", "a")]


def test_remove_duplicates_keeps_other_answers_to_one_question() -> None:
    given = splits(train=[example(NEAR, "a", id="a"), example(NEAR, "b", id="b")])
    kept, removed = remove_duplicates(given)
    assert (ids(kept["train"]), removed) == (["a", "b"], [])


def test_remove_duplicates_keeps_like_questions_with_unlike_answers() -> None:
    given = splits(train=[example(NEAR, "a", id="a"), example(NEARER, "b", id="b")])
    kept, removed = remove_duplicates(given)
    assert (ids(kept["train"]), removed) == (["a", "b"], [])


def test_remove_duplicates_leaves_develop_what_train_has_too() -> None:
    given = splits(train=[example(NEAR, id="t")], develop=[example(NEARER, id="d")])
    kept, removed = remove_duplicates(given)
    assert ids(kept["develop"]) == ["d"]
    assert reasons(removed) == [("t", "train", "near_repeat", "d")]


def test_remove_duplicates_never_touches_held_out_splits() -> None:
    twice = [example(NEAR, id="a"), example(NEAR, id="b"), example(NEARER, id="c")]
    given = splits(certify=twice, test=twice)
    kept, removed = remove_duplicates(given)
    assert (kept, removed) == (given, [])


@pytest.mark.parametrize(("limit", "is_kept"), [(0.8, False), (1.0, True)])
def test_remove_duplicates_keeps_to_the_limit(limit: float, is_kept: bool) -> None:
    given = splits(test=[example(NEAR, id="h")], train=[example(NEARER, id="s")])
    kept, _ = remove_duplicates(given, limit)
    assert bool(kept["train"]) is is_kept


def test_remove_duplicates_of_nothing() -> None:
    assert remove_duplicates(splits()) == (splits(), [])


questions = st.lists(
    st.tuples(st.text("ab ", min_size=1, max_size=10), st.sampled_from("xy"),
              st.sampled_from(SPLITS)),
    max_size=25,
)  # fmt: skip


@given(questions)
def test_remove_duplicates_always_obeys_its_four_reasons(
    rows: list[tuple[str, str, str]],
) -> None:
    given = splits()
    for number, (asks, says, split) in enumerate(rows):
        given[split].append(example(asks, says, id=f"e{number}"))
    kept, removed = remove_duplicates(given)
    by_id = {one.id: one for split in SPLITS for one in given[split]}
    assert {split: kept[split] for split in HELD_OUT} == {s: given[s] for s in HELD_OUT}
    assert sorted(by_id) == sorted([one.id for one in removed] + [
        one.id for split in SPLITS for one in kept[split]
    ])  # fmt: skip
    for one in removed:
        check_reason(one, by_id[one.id], by_id[one.like])
    check_nothing_is_left(kept)


def likeness(left: Example, right: Example) -> float:
    keys = comparison_key(left.request), comparison_key(right.request)
    return 1.0 if keys[0] == keys[1] else jaccard(shingles(keys[0]), shingles(keys[1]))


def check_reason(removed: Removed, gone: Example, like: Example) -> None:
    """Each reason is true of the two examples it names."""
    same = comparison_key(gone.request) == comparison_key(like.request)
    assert same == (removed.reason in ("same_as_held_out", "repeat"))
    assert likeness(gone, like) >= 0.8
    if removed.reason in ("repeat", "near_repeat"):
        assert gone.target == like.target


def check_nothing_is_left(kept: dict[str, list[Example]]) -> None:
    """No studied example is like a held-out one, nor like another with its answer."""
    studied = [one for split in STUDIED for one in kept[split]]
    for number, one in enumerate(studied):
        assert all(likeness(one, held) < 0.8 for split in HELD_OUT for held in kept[split])
        assert all(
            likeness(one, other) < 0.8 or one.target != other.target for other in studied[:number]
        )
