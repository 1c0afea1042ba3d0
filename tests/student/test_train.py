"""From a dataset to a sealed student: it learns, it repeats, a killed run ends in the same bits."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ownweights.core.artefact import Artefact, hash_file, open_artefact
from ownweights.core.errors import ArtefactMissing, InputError, ModelError, SettingsError
from ownweights.core.project import Project
from ownweights.dataset import Dataset, load_dataset
from ownweights.model.lora import TARGETS
from ownweights.student.examples import ExamplePlan
from ownweights.student.train import (
    MAX_EPOCHS,
    MAX_PART_TOKENS,
    MIN_EPOCHS,
    TOKEN_BUDGET,
    Base,
    Run,
    StudentOptions,
    load_base,
    plan_run,
    train_student,
)
from ownweights.student.trainer import StepReport, batch_loss
from ownweights.weights.adapter import attach_adapter, read_adapter
from ownweights.weights.base import base_id
from ownweights.weights.load import load_model
from tests.student.zoo import PLACES, QUICK, make_project, make_records, record_of
from tests.tiny import BASE_NAME, CONFIG, END_ID, make_base

ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    return make_project(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def student(home: tuple[Project, Dataset]) -> Artefact:
    project, dataset = home
    return train_student(dataset, project, options=QUICK)


# --- what comes out


def test_train_student_is_a_peft_folder_with_a_card(
    home: tuple[Project, Dataset], student: Artefact
) -> None:
    project, dataset = home
    assert sorted(path.name for path in student.path.iterdir()) == [
        "adapter_config.json", ADAPTER, "canary.safetensors", "card.json",
    ]  # fmt: skip
    base = base_id(project.root / BASE_NAME)
    assert student.card["parents"] == {"dataset": dataset.id, "base": base}
    config = json.loads((student.path / "adapter_config.json").read_text("utf-8"))
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    assert sorted(config["target_modules"]) == sorted(TARGETS)
    adapter = read_adapter(student.path, base_id=base)
    assert student.card["facts"]["trainable_params"] == adapter.num_parameters
    open_artefact(project.kind_dir("student"), student.id, "student", verify=True)


def test_train_student_card_says_how_it_was_trained(
    home: tuple[Project, Dataset], student: Artefact
) -> None:
    identity, facts = student.card["identity"], student.card["facts"]
    num_train = home[1].counts["train"]
    steps = 2 * math.ceil(num_train / 8)
    assert identity["steps"] == steps
    assert identity["base_name"] == BASE_NAME
    assert (identity["method"], identity["epochs"], identity["seed"]) == ("lora", 2, 1)
    assert identity["lora"] == {"rank": 4, "alpha": 8.0, "targets": list(TARGETS)}
    assert identity["derived"] == {"epochs": "as asked", "learning_rate": "as asked"}
    rule = home[1].prune
    assert rule is not None and identity["prune"] == rule.to_json()
    assert (facts["skipped_too_long"], facts["resumed_at"]) == (0, 0)
    assert (identity["hard_frac"], identity["swap"]) == (0.5, True)
    visits, each = num_train + 8 * (steps // 2), 4  # three letters and the end
    assert num_train * each < facts["num_trained_tokens"] <= visits * each
    assert facts["num_tokens"] > facts["num_trained_tokens"]
    assert facts["seconds"] > 0 and facts["tokens_per_s"] > 0
    assert 0 < len(facts["losses"]) <= 2 * 50


def test_train_student_learns(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    reports: list[StepReport] = []
    options = replace(QUICK, epochs=25, rank=8)
    made = train_student(dataset, project, options=options, on_step=reports.append)
    losses = [report.loss for report in reports]
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    assert made.card["facts"]["develop_loss"] < 0.5 * losses[0]
    assert [report.step for report in reports] == list(range(1, len(reports) + 1))


def test_train_student_stores_what_it_measured(
    home: tuple[Project, Dataset], student: Artefact
) -> None:
    project, dataset = home
    base = load_base(project, BASE_NAME)
    attach_adapter(base.model, read_adapter(student.path))
    rows = plan_run(_only(dataset, "develop"), base, QUICK).plan.rows
    plan = ExamplePlan(rows, epochs=1, rows_per_step=1, max_tokens=MAX_PART_TOKENS, seed=0)
    with torch.no_grad():
        nats = [
            float(batch_loss(base.model, part, 1.0))
            for step in range(plan.num_steps)
            for part in plan.batches(step)
        ]
    expected = sum(nats) / sum(len(row.ids) - row.num_prompt for row in rows)
    assert student.card["facts"]["develop_loss"] == pytest.approx(expected, abs=2e-5)


class _OneSplit(Dataset):
    """A dataset whose `train` split is another one."""

    split = "train"

    def examples(self, split: str) -> list[Any]:
        return super().examples(self.split)


def _only(dataset: Dataset, split: str) -> Dataset:
    found = _OneSplit(dataset.id, dataset.path, dataset.card)
    object.__setattr__(found, "split", split)
    return found


def test_train_student_never_opens_certify_and_test(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    for split in ("certify", "test"):
        (dataset.path / f"{split}.jsonl").write_bytes(b"unreadable")
    train_student(dataset, project, options=replace(QUICK, epochs=0.1))


def test_train_student_sees_the_pruned_prompt(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    base = load_base(project, BASE_NAME)
    texts = [
        base.template.tokenizer.decode(row.ids.tolist(), skip_special=False)
        for row in plan_run(dataset, base, QUICK).plan.rows
    ]
    assert all(text.startswith("<|bos|><|user|>a ") for text in texts)
    assert dataset.prune is not None and dataset.prune.drops_system


def test_plan_run_exchanges_values_of_json_answers(tmp_path: Path) -> None:
    records = make_records(as_json=True)
    project, dataset = make_project(tmp_path, records)
    base = load_base(project, BASE_NAME)
    read = {swap: texts_of(plan_run(dataset, base, replace(QUICK, swap=swap)), base)
            for swap in (True, False)}  # fmt: skip
    asked = {example.messages[-1]["content"] for example in dataset.examples("train")}
    assert {text for text, _ in read[False]} == asked
    assert {text for text, _ in read[True]} - asked
    for text, answer in read[True]:
        assert f"a {json.loads(answer)['animal']} by" in text


def test_plan_run_keeps_an_example_that_would_not_fit_with_other_values(tmp_path: Path) -> None:
    records = make_records(as_json=True)
    whale = "wh" + "a" * 18 + "le"
    for k in range(50):
        records.append(record_of(f"a {whale}{k:02}", f'{{"animal":"{whale}{k:02}"}}', f"whale-{k}"))
        long = f"a gnu by the {PLACES[k % 10]} {k}" + " or so" * 7
        records.append(record_of(long, '{"animal":"gnu"}', f"gnu-{k}"))
    project, dataset = make_project(tmp_path, records)
    base = load_base(project, BASE_NAME)
    window = base.model.config.max_position_embeddings
    run = plan_run(dataset, base, QUICK)
    assert run.counts.too_long == 0
    assert max(len(row.ids) for row in run.plan.rows) + len(whale) > window
    for step in range(run.plan.steps_per_epoch):
        assert all(part.tokens.shape[1] < window for part in run.plan.batches(step))


def texts_of(run: Run, base: Base) -> set[tuple[str, str]]:
    """The questions and answers that a run's first epoch reads."""
    found: set[tuple[str, str]] = set()
    for step in range(run.plan.steps_per_epoch):
        for part in run.plan.batches(step):
            width = part.tokens.shape[1]
            for row, tokens in enumerate(part.tokens.tolist()):
                trained = part.targets[part.where // width == row].tolist()[:-1]
                text = base.template.tokenizer.decode(tokens)
                answer = base.template.tokenizer.decode(trained)
                found.add((text[text.index("a ") : text.index(answer)], answer))
    return found


def test_train_student_without_develop_has_no_develop_loss(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    (dataset.path / "develop.jsonl").write_bytes(b"")
    made = train_student(dataset, project, options=replace(QUICK, epochs=0.1))
    assert made.card["facts"]["develop_loss"] is None


def test_train_student_of_every_turn_says_so(home: tuple[Project, Dataset]) -> None:
    """Only where it is asked for, so that other students keep their names."""
    project, dataset = home
    base = load_base(project, BASE_NAME)
    assert "turns" not in plan_run(dataset, base, QUICK).settings
    assert plan_run(dataset, base, replace(QUICK, turns="all")).settings["turns"] == "all"
    with pytest.raises(SettingsError, match="turns 'some' is not one of last, all"):
        replace(QUICK, turns="some")


def test_train_student_full_changes_all_weights(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    made = train_student(dataset, project, options=replace(QUICK, method="full"))
    assert sorted(made.card["files"]) == [
        "canary.safetensors", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert "lora" not in made.card["identity"]
    ends = json.loads((made.path / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    assert ends == END_ID  # training.md c.17
    before, after = load_model(project.root / BASE_NAME), load_model(made.path)
    unmoved = [
        name
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if torch.equal(old, new)
    ]
    assert unmoved == []
    num_parameters = sum(p.numel() for p in after.parameters())
    assert made.card["facts"]["trainable_params"] == num_parameters
    load_base(project, str(made.path))  # a full student is a base of its own


# --- the same again


def test_train_student_again_gives_the_same_bytes(
    home: tuple[Project, Dataset], student: Artefact
) -> None:
    project, dataset = home
    kept = student.path.with_name("kept")
    shutil.move(student.path, kept)
    try:
        again = train_student(dataset, project, options=QUICK)
        assert again.id == student.id
        assert hash_file(again.path / ADAPTER) == hash_file(kept / ADAPTER)
    finally:
        shutil.rmtree(student.path, ignore_errors=True)
        shutil.move(kept, student.path)


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"rank": 2}, {"epochs": 1}, {"learning_rate": 0.02}, {"rows_per_step": 4},
     {"lora_alpha": 4.0}, {"hard_frac": 0.25}, {"swap": False}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_train_student_with_other_options_is_another(
    home: tuple[Project, Dataset], student: Artefact, change: dict[str, Any]
) -> None:
    project, dataset = home
    base = load_base(project, BASE_NAME)
    run, other = (plan_run(dataset, base, options) for options in (QUICK, replace(QUICK, **change)))
    assert run.id != other.id
    assert plan_run(dataset, base, QUICK).id == run.id


def test_plan_run_does_not_tell_two_from_two_point_nought(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    base = load_base(project, BASE_NAME)
    whole, point = (replace(QUICK, epochs=n, lora_alpha=n) for n in (2, 2.0))
    assert plan_run(dataset, base, whole).id == plan_run(dataset, base, point).id


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[4]))
from ownweights.core.project import Project
from ownweights.dataset import load_dataset
from ownweights.student.train import StudentOptions, train_student

def on_step(report):
    if report.step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

project = Project(Path(sys.argv[1]))
options = StudentOptions(
    base="tiny", rank=4, epochs=2, rows_per_step=8, learning_rate=0.01, checkpoint_every_s=0
)
train_student(load_dataset(project, sys.argv[2]), project, options=options, on_step=on_step)
"""


def test_train_student_resumes_after_kill(
    tmp_path: Path, home: tuple[Project, Dataset], student: Artefact
) -> None:
    project = Project(tmp_path)
    shutil.copytree(home[0].root / BASE_NAME, tmp_path / BASE_NAME)
    shutil.copytree(home[1].path, project.kind_dir("dataset") / home[1].id)
    words = [str(tmp_path), home[1].id, "7", str(torch.get_num_threads())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run(
        [sys.executable, "-c", KILLED, *words], env=environment, capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    (work,) = project.kind_dir("student").iterdir()
    assert json.loads((work / "progress.json").read_text("utf-8"))["step"] == 6
    resumed = train_student(load_dataset(project, home[1].id), project, options=QUICK)
    assert resumed.card["facts"]["resumed_at"] == 6
    assert hash_file(resumed.path / ADAPTER) == hash_file(student.path / ADAPTER)
    assert resumed.id == student.id
    assert not work.exists()


def test_train_student_saves_every_so_often(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    saved: list[int] = []
    run_id = plan_run(dataset, load_base(project, BASE_NAME), replace(QUICK, seed=9)).id
    progress = project.kind_dir("student") / f".run-{run_id}" / "progress.json"

    def on_step(report: StepReport) -> None:
        if progress.is_file():
            saved.append(json.loads(progress.read_text("utf-8"))["step"])

    train_student(dataset, project, options=replace(QUICK, seed=9), on_step=on_step)
    assert saved == []  # half a minute has not passed
    options = replace(QUICK, seed=9, checkpoint_every_s=0)
    train_student(dataset, project, options=options, on_step=on_step)
    assert saved == list(range(1, len(saved) + 1))
    assert len(saved) > 4


# --- what does not fit


def test_train_student_skips_and_counts_what_is_too_long(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path, make_records(50, long=20))
    made = train_student(dataset, project, options=replace(QUICK, epochs=1))
    num_long = sum(len(e.messages[-1]["content"]) > 100 for e in dataset.examples("train"))
    assert made.card["facts"]["skipped_too_long"] == num_long > 5
    steps = math.ceil((dataset.counts["train"] - num_long) / 8)
    assert made.card["identity"]["steps"] == steps


def test_train_student_refuses_a_dataset_that_never_fits(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path, make_records(20, long=20))
    with pytest.raises(InputError) as caught:
        train_student(dataset, project, options=QUICK)
    window, count = CONFIG.max_position_embeddings, dataset.counts["train"]
    assert caught.value.what == (
        f"no train example of dataset {dataset.id} fits the base's window of {window} tokens"
        f" ({count} are too long)"
    )
    assert caught.value.hint == "choose a base with a longer window"


def test_train_student_refuses_an_empty_train_split(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    (dataset.path / "train.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match=r"the train split of dataset \w+ is empty"):
        train_student(dataset, project, options=QUICK)


def test_train_student_names_a_base_that_is_not_there(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    with pytest.raises(ArtefactMissing, match="base 'nobody' was not found"):
        train_student(dataset, project, options=replace(QUICK, base="nobody"))


def test_train_student_refuses_a_base_that_is_broken(tmp_path: Path) -> None:
    project, dataset = make_project(tmp_path)
    (tmp_path / BASE_NAME / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="is not a readable safetensors file"):
        train_student(dataset, project, options=QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dora"}, "method 'dora' is not one of lora, qlora, full"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"rows_per_step": 0}, "rows_per_step must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be more than 0 and at most 1000, got 0"),
        ({"epochs": math.nan}, "epochs must be more than 0 and at most 1000, got nan"),
        ({"learning_rate": 1.0}, "learning_rate must be in (0, 1), got 1.0"),
        ({"seed": -1}, "seed must be between 0 and 9223372036854775807"),
        ({"seed": 2**64}, "seed must be between 0 and 9223372036854775807"),
        ({"hard_frac": -0.1}, "hard_frac must be in [0, 1], got -0.1"),
        ({"hard_frac": 1.5}, "hard_frac must be in [0, 1], got 1.5"),
        ({"hard_frac": math.nan}, "hard_frac must be in [0, 1], got nan"),
        ({"lora_alpha": 0.0}, "lora_alpha must be more than 0, got 0.0"),
    ],
)  # fmt: skip
def test_student_options_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        StudentOptions(**options)
    assert caught.value.what == message


# --- what is derived


def test_plan_run_derives_epochs_from_a_budget_of_tokens(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    base = load_base(project, BASE_NAME)
    run = plan_run(dataset, base, replace(QUICK, epochs=None))
    num_tokens = sum(len(row.ids) for row in run.plan.rows)
    expected = min(MAX_EPOCHS, max(MIN_EPOCHS, round(TOKEN_BUDGET / num_tokens, 1)))
    assert run.settings["epochs"] == expected == MAX_EPOCHS  # a small dataset: as often as allowed
    assert run.settings["derived"]["epochs"] == (
        f"{TOKEN_BUDGET:,} tokens over {num_tokens:,} a pass, {MIN_EPOCHS}-{MAX_EPOCHS}"
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_plan_run_derives_the_rate_from_the_width(
    home: tuple[Project, Dataset], method: str
) -> None:
    project, dataset = home
    options = replace(QUICK, learning_rate=None, method=method)
    run = plan_run(dataset, load_base(project, BASE_NAME), options)
    rate = 3e-3 * math.sqrt(256 / CONFIG.hidden_size)
    assert run.recipe.learning_rate == pytest.approx(rate, rel=0.05)
    assert run.settings["learning_rate"] == run.recipe.learning_rate
    assert (
        f"scaled by the root of 256 / {CONFIG.hidden_size}"
        in (run.settings["derived"]["learning_rate"])
    )


def test_plan_run_takes_alpha_as_twice_the_rank(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    base = load_base(project, BASE_NAME)
    assert plan_run(dataset, base, replace(QUICK, rank=6)).settings["lora"]["alpha"] == 12.0
    asked = plan_run(dataset, base, replace(QUICK, lora_alpha=5.0))
    assert asked.settings["lora"]["alpha"] == 5.0


@pytest.mark.parametrize("seed", [2**63 - 1, 2**32])
def test_train_student_takes_every_seed_that_is_allowed(
    home: tuple[Project, Dataset], seed: int
) -> None:
    made = train_student(home[1], home[0], options=replace(QUICK, seed=seed, epochs=0.2))
    assert made.card["identity"]["seed"] == seed


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("config.json", b"[]"), ("config.json", b"\xff"), ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"\xff"), ("tokenizer_config.json", b'{"bos_token": 5}'),
        ("tokenizer_config.json", b'{"chat_template": [7]}'), ("chat_template.jinja", b"\xff"),
        ("tokenizer.json", b"[]"),
    ],
)  # fmt: skip
def test_load_base_of_damaged_files_is_a_model_error(
    tmp_path: Path, file: str, data: bytes
) -> None:
    project = Project(tmp_path)
    make_base(tmp_path / "odd")
    (tmp_path / "odd" / file).write_bytes(data)
    with pytest.raises(ModelError):
        load_base(project, "odd")
