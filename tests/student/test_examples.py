"""Examples as batches: what is trained, what is only read, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ownweights.model.template import ChatTemplate
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.examples import ExamplePlan, TokenRow, hash_rows, pad_rows
from ownweights.student.trainer import Batch, batch_loss
from tests.student.rows import make_rows
from tests.tiny import CONFIG, END_ID, PAD_ID, save_byte_tokenizer, tiny_model

QUESTIONS = [
    ("play it", '{"intent":"PlayMusic"}'), ("Wetter in Köln?", "sonnig ☀"), ("hi", "h"),
    ("say <|end|>", "<|end|> is text"), ("a much longer question than the others", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_byte_tokenizer(folder)
    return ChatTemplate.load(folder, Tokenizer.load(folder))


def row_of(template: ChatTemplate, question: str, answer: str) -> TokenRow:
    ids, num_prompt = template.render_example([{"role": "user", "content": question}], answer)
    return TokenRow(np.array(ids, np.int32), num_prompt)


def trained_by_row(batch: Batch) -> list[list[int]]:
    """The targets of each row, in order."""
    width = batch.tokens.shape[1]
    found: list[list[int]] = [[] for _ in range(len(batch.tokens))]
    for where, target in zip(batch.where.tolist(), batch.targets.tolist(), strict=True):
        found[where // width].append(target)
    return found


def number_rows(lengths: list[int]) -> list[TokenRow]:
    """Rows that can be told apart: row k consists of the number 100 + k."""
    return [TokenRow(np.full(length, 100 + k, np.int32), 1) for k, length in enumerate(lengths)]


def rows_in(batch: Batch) -> list[int]:
    return (batch.tokens[:, 0] - 100).tolist()


# --- one batch


def test_plan_trains_the_answer_and_its_end_only(template: ChatTemplate) -> None:
    rows = [row_of(template, question, answer) for question, answer in QUESTIONS]
    plan = ExamplePlan(rows, epochs=1, rows_per_step=9, max_tokens=9999, seed=0)
    (batch,) = plan.batches(0)
    said: set[str] = set()
    for targets in trained_by_row(batch):
        assert targets[-1] == END_ID
        assert END_ID not in targets[:-1]
        said.add(template.tokenizer.decode(targets[:-1]))
    assert said == {answer for _, answer in QUESTIONS}


def test_pad_rows_trains_each_position_on_its_successor() -> None:
    rows = make_rows(6)
    batch = pad_rows(rows)
    width = batch.tokens.shape[1]
    for where, target in zip(batch.where.tolist(), batch.targets.tolist(), strict=True):
        row, at = divmod(where, width)
        assert rows[row].ids[at + 1] == target
        assert at + 1 >= rows[row].num_prompt
    assert len(batch.where) == sum(len(row.ids) - row.num_prompt for row in rows)


def test_pad_rows_pads_on_the_right_only() -> None:
    rows = number_rows([3, 6])
    batch = pad_rows(rows)
    assert batch.tokens.tolist() == [[100, 100, 0, 0, 0], [101] * 5]


def test_pad_rows_of_a_row_without_prompt_trains_all_but_the_first() -> None:
    batch = pad_rows([TokenRow(np.array([9, 8, 7], np.int32), 0)])
    assert batch.where.tolist() == [0, 1]
    assert batch.targets.tolist() == [8, 7]


def test_padding_does_not_change_the_loss() -> None:
    model = tiny_model(2)
    rows = make_rows(7, shortest=3, longest=30)
    with torch.no_grad():
        together = float(batch_loss(model, pad_rows(rows), 1.0))
        alone = sum(float(batch_loss(model, pad_rows([row]), 1.0)) for row in rows)
    assert together == pytest.approx(alone, rel=1e-5)


def test_padding_is_never_read() -> None:
    model = tiny_model(2)
    batch = pad_rows(make_rows(5, shortest=3, longest=30))
    other = batch.tokens.clone()
    read = torch.zeros_like(other, dtype=torch.bool)
    for row, length in enumerate(len(row.ids) - 1 for row in make_rows(5, shortest=3, longest=30)):
        read[row, :length] = True
    assert not read.all()
    other[~read] = 200
    with torch.no_grad():
        before = batch_loss(model, batch, 1.0)
        after = batch_loss(model, Batch(other, batch.where, batch.targets), 1.0)
    assert torch.equal(before, after)


def test_padding_trains_no_pad_token() -> None:
    targets = pad_rows(make_rows(5)).targets
    assert PAD_ID not in targets.tolist()
    assert int(targets.max()) < CONFIG.vocab_size


# --- the order of a run


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=90),
    rows_per_step=st.integers(1, 12), max_tokens=st.integers(2, 200), seed=st.integers(0, 99),
)  # fmt: skip
def test_plan_always_visits_every_example_once_an_epoch(
    lengths: list[int], rows_per_step: int, max_tokens: int, seed: int
) -> None:
    plan = ExamplePlan(
        number_rows(lengths), epochs=2, rows_per_step=rows_per_step, max_tokens=max_tokens,
        seed=seed,
    )  # fmt: skip
    assert plan.num_steps == 2 * plan.steps_per_epoch
    for epoch in range(2):
        seen: list[int] = []
        for step in range(plan.steps_per_epoch):
            of_step = [rows_in(part) for part in plan.batches(epoch * plan.steps_per_epoch + step)]
            assert 1 <= sum(map(len, of_step)) <= rows_per_step
            seen += [row for part in of_step for row in part]
        assert sorted(seen) == list(range(len(lengths)))


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=60), max_tokens=st.integers(2, 200)
)
def test_plan_always_keeps_a_part_within_its_tokens(lengths: list[int], max_tokens: int) -> None:
    plan = ExamplePlan(
        number_rows(lengths), epochs=1, rows_per_step=16, max_tokens=max_tokens, seed=0
    )
    for step in range(plan.num_steps):
        for part in plan.batches(step):
            assert len(part.tokens) == 1 or part.tokens.numel() <= max_tokens


def test_plan_makes_no_more_parts_than_the_tokens_ask_for() -> None:
    plan = ExamplePlan(number_rows([10] * 8), epochs=1, rows_per_step=8, max_tokens=40, seed=0)
    assert [len(part.tokens) for part in plan.batches(0)] == [4, 4]


def orders(seed: int, *, rows_per_step: int = 4, epochs: float = 3) -> list[list[int]]:
    """The rows of each epoch in the order of their steps."""
    plan = ExamplePlan(
        number_rows([5, 6, 7, 8] * 6), epochs=epochs, rows_per_step=rows_per_step,
        max_tokens=999, seed=seed,
    )  # fmt: skip
    size, found = plan.steps_per_epoch, []
    for step in range(plan.num_steps):
        if step % size == 0:
            found.append([])
        found[-1] += [row for part in plan.batches(step) for row in rows_in(part)]
    return found


def test_plan_order_depends_on_seed_and_epoch_alone() -> None:
    first = orders(seed=1)
    assert first == orders(seed=1)
    assert first == orders(seed=1, epochs=7)[:3]  # not on how long the run is
    assert first != orders(seed=2)
    assert len({tuple(order) for order in first}) == 3


def test_plan_batches_are_addressed_by_step_while_all_are_visited() -> None:
    rows = make_rows(50)
    make = lambda: ExamplePlan(rows, epochs=4, rows_per_step=7, max_tokens=60, seed=3)  # noqa: E731
    forward, backward = make(), make()
    there = {step: forward.batches(step) for step in range(forward.num_steps)}
    back = {step: backward.batches(step) for step in reversed(range(backward.num_steps))}
    for step, parts in there.items():
        for one, other in zip(parts, back[step], strict=True):
            assert torch.equal(one.tokens, other.tokens)
            assert torch.equal(one.where, other.where)
            assert torch.equal(one.targets, other.targets)


def test_plan_puts_alike_lengths_together() -> None:
    rng = np.random.default_rng(0)
    rows = number_rows(rng.integers(2, 100, 400).tolist())
    plan = ExamplePlan(rows, epochs=1, rows_per_step=16, max_tokens=10**6, seed=0)
    padded = sum(part.tokens.numel() for s in range(plan.num_steps) for part in plan.batches(s))
    assert padded < 1.15 * sum(len(row.ids) - 1 for row in rows)


@pytest.mark.parametrize(
    ("epochs", "num_steps"), [(1, 4), (0.5, 2), (0.01, 1), (2.25, 9), (1000, 4000)]
)
def test_plan_counts_its_steps(epochs: float, num_steps: int) -> None:
    plan = ExamplePlan(make_rows(10), epochs=epochs, rows_per_step=3, max_tokens=99, seed=0)
    assert (plan.steps_per_epoch, plan.num_steps) == (4, num_steps)


def test_plan_takes_fewer_rows_than_a_step_holds() -> None:
    plan = ExamplePlan(make_rows(3), epochs=2, rows_per_step=100, max_tokens=999, seed=0)
    assert (plan.rows_per_step, plan.num_steps) == (3, 2)


# --- what is left to learn


def hard_plan(
    count: int = 40, *, seed: int = 0, hard_frac: float = 0.5, **more: Any
) -> ExamplePlan:
    return ExamplePlan(
        number_rows([4 + k % 5 for k in range(count)]), epochs=4, rows_per_step=4, max_tokens=999,
        seed=seed, hard_frac=hard_frac, **more,
    )  # fmt: skip


def observe_all(
    plan: ExamplePlan, steps: Iterable[int], nats_of: Callable[[int], float]
) -> list[int]:
    """Go through steps; every token of row k costs `nats_of(k)`. The rows, in order."""
    seen: list[int] = []
    for step in steps:
        parts = plan.batches(step)
        rows = [target for part in parts for target in part.targets.tolist()]
        plan.observe(step, torch.tensor([nats_of(target - 100) for target in rows]))
        seen += [row for part in parts for row in rows_in(part)]
    return seen


@pytest.mark.parametrize("max_tokens", [999, 12])
def test_plan_goes_back_to_what_is_not_known(max_tokens: int) -> None:
    plan = hard_plan()
    plan.max_tokens = max_tokens
    lengths = {k: len(row.ids) - 1 for k, row in enumerate(plan.rows)}
    nats = {k: (k * 7 % 40) / lengths[k] for k in lengths}  # 0 to 39 an example, each once
    first = observe_all(plan, range(10), nats.__getitem__)
    assert sorted(first) == list(range(40))
    later = observe_all(plan, range(10, 16), nats.__getitem__)
    hard = {k for k in range(40) if k * 7 % 40 >= 20}
    assert hard <= set(later)
    assert len(later) == len(set(later)) == plan.num_hard + plan.num_easy == 23


def test_plan_forgets_what_it_thought_of_an_example_that_is_learned() -> None:
    plan = hard_plan()
    observe_all(plan, range(10), lambda k: float(k >= 20))
    second = observe_all(plan, range(10, 16), lambda k: 0.01 if k >= 20 else 0.5)
    third = observe_all(plan, range(16, 22), float)
    assert set(second) - set(range(20, 40)) <= set(third)  # known worst when last read


def test_plan_visits_other_known_examples_every_time() -> None:
    plan = hard_plan()
    found = set()
    for start in range(10, 34, 6):
        observe_all(plan, range(10) if start == 10 else (), lambda k: float(k >= 20))
        found |= {k for k in observe_all(plan, range(start, start + 6), lambda k: float(k >= 20))
                  if k < 20}  # fmt: skip
    assert len(found) > plan.num_easy


@pytest.mark.parametrize("stop_at", [0, 3, 9, 10, 12, 15, 16, 30])
def test_plan_goes_on_from_its_state(stop_at: int) -> None:
    whole, first, second = hard_plan(), hard_plan(), hard_plan()
    nats_of = lambda k: float(k * 11 % 40)  # noqa: E731
    wanted = observe_all(whole, range(40), nats_of)
    before = observe_all(first, range(stop_at), nats_of)
    second.restore(first.state())
    assert before + observe_all(second, range(stop_at, 40), nats_of) == wanted


def test_plan_state_does_not_change_later() -> None:
    plan = hard_plan()
    observe_all(plan, range(2), lambda _: 1.0)
    state = plan.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    observe_all(plan, range(2, 12), float)
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    assert len(state["chosen"]) == 40


@pytest.mark.parametrize(
    ("count", "hard_frac", "num_hard", "num_easy"),
    [(40, 0.5, 20, 3), (40, 1.0, 40, 0), (40, 0.01, 4, 5), (3, 0.5, 3, 0), (1, 0.5, 1, 0)],
)
def test_plan_counts_hard_and_known(
    count: int, hard_frac: float, num_hard: int, num_easy: int
) -> None:
    plan = hard_plan(count, hard_frac=hard_frac)
    assert (plan.num_hard, plan.num_easy) == (num_hard, num_easy)
    for step in range(plan.num_steps):
        assert plan.batches(step)


def test_plan_varies_rows_by_epoch() -> None:
    asked: list[tuple[int, int]] = []

    def vary(index: int, epoch: int) -> TokenRow:
        asked.append((index, epoch))
        return TokenRow(np.full(5 + epoch, 100 + index, np.int32), 1)

    plan = hard_plan(vary=vary)
    widths = {step: plan.batches(step)[0].tokens.shape[1] for step in (0, 9, 10, 15, 16)}
    assert widths == {0: 4, 9: 4, 10: 5, 15: 5, 16: 6}
    assert len(asked) == len(set(asked)) == 40 + 2 * 23


def test_plan_needs_examples() -> None:
    with pytest.raises(AssertionError, match="a plan needs examples"):
        ExamplePlan([], epochs=1, rows_per_step=1, max_tokens=9, seed=0)


# --- the name of what is trained on


def test_hash_rows_knows_equal_rows(tmp_path: Path) -> None:
    assert hash_rows(make_rows(5)) == hash_rows(make_rows(5))
    wider = [TokenRow(row.ids.astype(np.int64), row.num_prompt) for row in make_rows(5)]
    assert hash_rows(wider) == hash_rows(make_rows(5))


@pytest.mark.parametrize("change", ["token", "prompt", "order", "fewer", "border"])
def test_hash_rows_changes_with(change: str) -> None:
    rows = make_rows(5)
    if change == "token":
        rows[2].ids[1] += 1
    elif change == "prompt":
        rows[2] = TokenRow(rows[2].ids, rows[2].num_prompt + 1)
    elif change == "order":
        rows[0], rows[1] = rows[1], rows[0]
    elif change == "fewer":
        rows.pop()
    else:  # the same tokens, another row ends earlier
        moved = np.concatenate([rows[0].ids[-1:], rows[1].ids])
        rows[:2] = [
            TokenRow(rows[0].ids[:-1], rows[0].num_prompt), TokenRow(moved, rows[1].num_prompt)
        ]  # fmt: skip
    assert hash_rows(rows) != hash_rows(make_rows(5))
