"""What no piece of the trainer can say alone: families, methods and dtypes put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ownweights.student.examples import pad_rows
from ownweights.student.study import load_base
from ownweights.student.train import plan_run, train_student
from ownweights.student.trainer import batch_loss
from ownweights.traffic import Record, make_record
from ownweights.weights.student import load_student
from tests.student.rows import make_rows
from tests.student.zoo import QUICK, WORKLOAD, make_project, make_records
from tests.tiny import BASE_NAME, END_ID, make_base, tiny_model
from tests.variants import BORDER, LONG, VARIANTS

ROUNDING = 1e-5  # of float32 sums in another order


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_student_of_phi_is_trained_on_from_another(tmp_path: Path, method: str, head: bool) -> None:
    project, dataset = make_project(tmp_path, make_records(20))
    make_base(project.root / BASE_NAME, **VARIANTS["phi"])
    options = replace(QUICK, epochs=1, method=method, head=head)
    first = train_student(dataset, project, options=options)
    second = train_student(dataset, project, options=replace(options, start=first.id, seed=2))
    assert load_student(project, second.id).id == second.id
    assert second.card["identity"]["lora"] == first.card["identity"]["lora"]
    assert second.card["facts"]["trainable_params"] == first.card["facts"]["trainable_params"]


def test_rows_beside_a_longer_one_cost_what_they_cost_alone() -> None:
    """A short text keeps its frequencies, whatever it is padded to."""
    model = tiny_model(2, **LONG)
    short, long = (make_rows(1, shortest=count, longest=count)[0] for count in (6, 20))
    assert len(short.ids) < BORDER < len(long.ids)
    alone = [batch_loss(model, pad_rows([row]), 1.0).item() for row in (short, long)]
    together = batch_loss(model, pad_rows([short, long]), 1.0).item()
    assert together == pytest.approx(sum(alone), rel=ROUNDING)


def test_exchanged_values_leave_every_turn_trained(tmp_path: Path) -> None:
    """training.md c.12: an example made of several trains its earlier answers as well."""
    records: list[Record] = []
    for number, one in enumerate(make_records(20, as_json=True)):
        earlier = [
            {"role": "user", "content": f"I am {number}"}, {"role": "assistant", "content": "hi"},
        ]  # fmt: skip
        messages = [*earlier, one.request["messages"][-1]]
        request = {"model": "m", "messages": messages}
        choice = {"index": 0, "message": {"role": "assistant", "content": one.answer_text},
                  "finish_reason": "stop"}  # fmt: skip
        records.append(make_record(request, {"model": "m", "choices": [choice]},
                                   role="imported", workload=WORKLOAD, at=1.0))  # fmt: skip
    project, dataset = make_project(tmp_path, records)
    options = replace(QUICK, turns="all", epochs=1)
    base = load_base(project, BASE_NAME)
    plan = plan_run(dataset, base, options).plan
    ends = [
        int((batch.targets == END_ID).sum())
        for step in range(plan.num_steps)
        for batch in plan.batches(step)
    ]
    assert sum(ends) == 2 * len(plan.rows)
