"""On-policy distillation: what is sampled is what is trained, and it comes near the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ownweights.model.generate import NaiveSampler, generate
from ownweights.student.examples import TokenRow
from ownweights.student.lessons import make_lesson
from ownweights.student.objective.chunks import token_nats
from ownweights.student.objective.on_policy import SampledPlan
from ownweights.student.study import Materials, Study, load_base
from ownweights.student.train import train_student
from ownweights.student.trainer import StepReport
from ownweights.weights.student import assemble
from tests.student.zoo import QUICK, make_project
from tests.tiny import (
    BASE_NAME,
    END_ID,
    TOOL_ID,
    make_base,
    save_byte_tokenizer,
    tiny_model,
    with_adapter,
)

ON_POLICY = replace(QUICK, objective="on-policy", teacher="big", max_answer_tokens=6, epochs=1)


class Recorder:
    """A sampler that remembers what it gave."""

    def __init__(self, inner: NaiveSampler) -> None:
        self.inner = inner
        self.given: list[tuple[list[int], list[int]]] = []

    def sample(
        self, prompts: Sequence[np.ndarray], *, max_tokens: int, temperature: float, seed: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        found = self.inner.sample(
            prompts, max_tokens=max_tokens, temperature=temperature, seed=seed
        )
        pairs = zip(prompts, found, strict=True)
        self.given += [(p.tolist(), ids.tolist()) for p, (ids, _) in pairs]
        return found


def prompts_of(num: int) -> list[TokenRow]:
    rng = np.random.default_rng(num)
    rows = [rng.integers(7, 200, int(rng.integers(3, 12))).astype(np.int32) for _ in range(num)]
    return [TokenRow(ids, len(ids)) for ids in rows]


def sampled_plan(sampler: Recorder, **how: int) -> SampledPlan:
    return SampledPlan(
        prompts_of(9), sampler, max_answer_tokens=7, window=how.get("window", 96), epochs=2,
        rows_per_step=4, max_tokens=how.get("max_tokens", 40), seed=3,
    )  # fmt: skip


def test_on_policy_trains_the_sampled_ids() -> None:
    """training.md c.55: the very ids, whatever they decode to, at the positions sampled."""
    sampler = Recorder(NaiveSampler(with_adapter(tiny_model(2), 3), {END_ID}))
    plan = sampled_plan(sampler)
    seen: list[tuple[list[int], list[int]]] = []
    for step in range(plan.num_steps):
        for batch in plan.batches(step):
            width = batch.tokens.shape[1]
            for row, tokens in enumerate(batch.tokens.tolist()):
                mine = batch.where // width == row
                first = int(batch.where[mine][0]) % width
                seen.append((tokens[: first + 1], batch.targets[mine].tolist()))
    assert sorted(seen) == sorted(sampler.given)
    assert len(seen) == 18


def test_on_policy_answers_stay_within_the_window() -> None:
    plan = sampled_plan(Recorder(NaiveSampler(tiny_model(2))), window=14)
    assert all(b.tokens.shape[1] < 14 for step in range(plan.num_steps) for b in plan.batches(step))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_tells_the_trainers_logprobs(temperature: float) -> None:
    """training.md c.54: of the unmodified distribution, at any temperature."""
    model = with_adapter(tiny_model(2), 3)
    prompts = [row.ids for row in prompts_of(5)]
    sampler = NaiveSampler(model, {END_ID})
    told = sampler.sample(prompts, max_tokens=8, temperature=temperature, seed=5)
    gaps: list[float] = []
    for prompt, (ids, logprobs) in zip(prompts, told, strict=True):
        tokens = torch.tensor(np.concatenate([prompt, ids]))[None].long()
        hidden = model(tokens[:, :-1])[0, len(prompt) - 1 :]
        nats = token_nats(hidden, model.head_weight(), tokens[0, len(prompt) :])
        gaps += (nats.detach().numpy() + logprobs).tolist()
    assert np.abs(gaps).mean() < 1e-4


def test_on_policy_ends_where_serving_ends(tmp_path: Path) -> None:
    """The tokenizer's own EOS ends an answer, too, where the template writes another end."""
    project, dataset = make_project(tmp_path)
    save_byte_tokenizer(tmp_path / BASE_NAME, eos_token="<|tool|>")
    base = load_base(project, BASE_NAME)
    make_base(tmp_path / "big", 5)
    save_byte_tokenizer(tmp_path / "big", eos_token="<|tool|>")
    plan = make_lesson(Study(project, dataset, base, ON_POLICY, Materials())).plan
    assert isinstance(plan, SampledPlan) and isinstance(plan.sampler, NaiveSampler)
    served = assemble("student", base.model, base.path).end_ids
    assert plan.sampler.end_ids == served == {END_ID, TOOL_ID}


def test_naive_sampler_is_generate_with_a_seed_of_its_own() -> None:
    model = with_adapter(tiny_model(2), 3)
    prompts = [row.ids for row in prompts_of(3)]
    found = NaiveSampler(model, {END_ID}).sample(prompts, max_tokens=6, temperature=1.0, seed=9)
    for index, (prompt, (ids, logprobs)) in enumerate(zip(prompts, found, strict=True)):
        one = generate(
            model, prompt.tolist(), max_tokens=6, end_ids={END_ID}, temperature=1.0, seed=9 + index
        )
        assert ids.tolist() == one.token_ids
        assert logprobs == pytest.approx(one.logprobs, abs=1e-5)
    assert all(layer.formed is None for layer in model.modules() if hasattr(layer, "formed"))


def test_on_policy_student_comes_near_its_teacher(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    make_base(tmp_path / "big", 5, hidden_size=64, head_dim=16)
    reports: list[StepReport] = []
    options = replace(ON_POLICY, epochs=14, rank=16)
    made = train_student(dataset, project, options=options, on_step=reports.append)
    assert sum(r.loss for r in reports[-5:]) < 0.8 * sum(r.loss for r in reports[:5])
    identity = made.card["identity"]
    assert (identity["divergence"], identity["max_answer_tokens"]) == (1.0, 6)


def test_on_policy_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    made: list[str] = []
    for name, stop_at in (("a", None), ("b", 3)):
        project, dataset = make_project(tmp_path / name)
        make_base(tmp_path / name / "big", 5)
        options = replace(ON_POLICY, checkpoint_every_s=0)

        def stop(report: StepReport, at: int | None = stop_at) -> None:
            if report.step == at:
                raise KeyboardInterrupt

        if stop_at is not None:
            with pytest.raises(KeyboardInterrupt):
                train_student(dataset, project, options=options, on_step=stop)
        student = train_student(dataset, project, options=options)
        assert student.card["facts"]["resumed_at"] == (0 if stop_at is None else stop_at - 1)
        made.append(student.id)
    assert made[0] == made[1]
