"""What a training will take is foretold from measured steps, and refused where it cannot be had."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ownweights.core.errors import WontFit
from ownweights.core.project import Project
from ownweights.dataset import Dataset
from ownweights.student.loss import CHUNK_POSITIONS
from ownweights.student.preflight import estimate as estimate_module
from ownweights.student.preflight.calibrate import Point, Shape, measure, plan_points
from ownweights.student.preflight.estimate import (
    Calibration,
    Work,
    calibrate,
    calibration_path,
    check_fits,
    check_weights,
    estimate_run,
    is_surely_small,
    num_parameters,
    shape_of,
)
from ownweights.student.train import StudentOptions, load_base, plan_run
from tests.student.zoo import QUICK, make_project
from tests.tiny import BASE_NAME, CONFIG, tiny_model

TOLERANCE = 0.25  # of the peak: allocators round up, and a process of tests holds more than torch
DEEP = replace(CONFIG, num_hidden_layers=24, max_position_embeddings=512)
SHAPE = Shape(DEEP, "lora", 4, 8.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    return make_project(tmp_path_factory.mktemp("home"))


def costs(point: Point) -> tuple[float, int]:
    """Seconds and bytes by a law of which the estimate knows only the form."""
    layers, tokens = point.layers, point.tokens
    seconds = 0.01 + layers * (2e-3 + 1e-5 * tokens + 3e-8 * tokens * point.width)
    each = min(CHUNK_POSITIONS, -(-point.trained // 2))
    held = 5e6 + layers * (1e6 + 900 * tokens) + 400 * tokens + 9 * 2 * each * DEEP.vocab_size
    return seconds + 4e-6 * point.trained + 2e-6 * tokens, int(held)


def lawful(shape: Shape = SHAPE) -> Calibration:
    """A calibration from points that follow the law."""
    points = [
        replace(point, seconds=costs(point)[0], peak_bytes=10**8 + costs(point)[1],
                start_bytes=10**8)
        for point in plan_points(shape)
    ]  # fmt: skip
    return Calibration(shape, points)


def test_calibration_finds_the_law_it_was_measured_by() -> None:
    found = lawful()
    assert {point.layers for point in found.points} == {2, 6}
    asked = Point(24, 16, 500, 3000)
    seconds, held = costs(asked)
    assert found.seconds(Work(((16, 500, 3000),))) == pytest.approx(seconds, rel=0.02)
    assert found.peak_bytes(16, 500, 3000) == pytest.approx(10**8 + held, rel=0.02)


def test_calibration_without_time_for_every_size_is_of_use() -> None:
    """On a busy machine only a small and a large step of each depth are measured."""
    few = lawful().points[:4]
    assert len({(one.layers, one.tokens) for one in few}) == 4
    found = Calibration(SHAPE, few)
    held = costs(Point(24, 16, 500, 3000))[1]
    assert found.peak_bytes(16, 500, 3000) == pytest.approx(10**8 + held, rel=0.05)


def test_calibration_of_a_step_in_parts_counts_its_own_cost_once() -> None:
    found = lawful()
    whole = found.seconds(Work(((8, 100, 80),)))
    parts = found.seconds(Work(((4, 100, 40), (4, 100, 40))))
    assert parts == pytest.approx(whole)
    assert found.seconds(Work(((8, 100, 80), (8, 100, 80)))) < 2 * whole


def test_plan_points_of_a_shallow_model_are_the_models_own() -> None:
    assert {one.layers for one in plan_points(Shape(CONFIG, "lora", 4, 8.0))} == {2}
    points = plan_points(SHAPE)
    assert max(one.width for one in points) <= DEEP.max_position_embeddings
    assert all(0 < one.trained <= one.tokens for one in points)


def test_num_parameters_counts_the_matrices() -> None:
    for tied in (True, False):
        model = tiny_model(tie_word_embeddings=tied)
        count = sum(p.numel() for p in model.parameters() if p.ndim > 1)
        assert num_parameters(model.config) == count


def test_shape_survives_json() -> None:
    assert Shape.from_json(json.loads(json.dumps(SHAPE.to_json()))) == SHAPE


def test_estimate_is_for_the_longest_rows_side_by_side(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    run = plan_run(dataset, load_base(project, BASE_NAME), QUICK)
    calibration = lawful(Shape(CONFIG, "lora", 4, 8.0))
    found = estimate_run(run, calibration, free_bytes=10**9)
    longest = max(len(row.ids) for row in run.plan.rows) - 1
    most = max(len(row.trained_at()) for row in run.plan.rows)
    assert found.longest == longest
    assert found.peak_bytes == calibration.peak_bytes(8, longest, 8 * most)
    assert found.steps == run.plan.num_steps
    seconds = sum(
        calibration.seconds(
            Work(tuple((*p.tokens.shape, len(p.targets)) for p in run.plan.batches(step)))
        )
        for step in range(run.plan.steps_per_epoch)
    )
    expected = seconds / run.plan.steps_per_epoch * run.plan.num_steps
    assert found.seconds == pytest.approx(expected, rel=1e-6)
    assert found.fits


def test_estimate_names_the_setting_that_would_fit(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    run = plan_run(dataset, load_base(project, BASE_NAME), replace(QUICK, rows_per_step=16))
    calibration = lawful(Shape(CONFIG, "lora", 64, 128.0))
    needed = estimate_run(run, calibration, free_bytes=1).peak_bytes
    smaller = estimate_run(run, calibration, rows_per_step=4, free_bytes=1).peak_bytes
    with pytest.raises(WontFit, match=r"would need about 0\.1 GB") as refusal:
        check_fits(run, calibration, free_bytes=int(smaller / 0.899))
    assert refusal.value.hint == "set rows_per_step = 4"
    assert (refusal.value.needed_bytes, refusal.value.exit_code) == (needed, 4)
    with pytest.raises(WontFit) as refusal:
        check_fits(run, calibration, free_bytes=1000)
    assert "take a smaller base" in (refusal.value.hint or "")
    full = lawful(Shape(CONFIG, "full", 0, 0.0))
    with pytest.raises(WontFit) as refusal:
        check_fits(run, full, free_bytes=1000)
    assert refusal.value.hint == 'set method = "lora"'


def test_check_weights_refuses_before_anything_is_read() -> None:
    check_weights(CONFIG, free_bytes=10**9)
    with pytest.raises(WontFit, match="the base's weights alone need"):
        check_weights(CONFIG, free_bytes=4 * num_parameters(CONFIG))


def test_is_surely_small_is_careful() -> None:
    options = StudentOptions()
    assert is_surely_small(CONFIG, options, free_bytes=4 * 10**9)
    assert not is_surely_small(CONFIG, options, free_bytes=2 * 10**9)
    wide = replace(CONFIG, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16)
    assert not is_surely_small(wide, options, free_bytes=16 * 10**9)


def test_calibrate_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Shape] = []

    def count(shape: Shape) -> list[Point]:
        measured.append(shape)
        return lawful(shape).points

    monkeypatch.setattr(estimate_module, "measure", count)
    project = Project(tmp_path)
    first, again = calibrate(project, SHAPE), calibrate(project, SHAPE)
    assert first.points == again.points and len(measured) == 1
    other = replace(SHAPE, rank=8)
    assert calibration_path(project, other) != calibration_path(project, SHAPE)
    calibration_path(project, SHAPE).write_text("{", "utf-8")  # of no use: measured again
    assert calibrate(project, SHAPE).points == first.points and len(measured) == 2


def test_measure_says_that_not_even_a_step_was_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WontFit, match="could not be measured here") as refusal:
        measure(SHAPE)
    assert "smaller base" in (refusal.value.hint or "")


RUN = """
import json, resource, sys
from pathlib import Path
from ownweights.core.project import Project
from ownweights.dataset import load_dataset
from ownweights.model.memory import keep_freed_memory
keep_freed_memory()
from ownweights.student.train import train_student
from tests.student.zoo import QUICK
project = Project(Path(sys.argv[1]))
train_student(load_dataset(project, sys.argv[2]), project, options=QUICK)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_estimate_foretells_memory(home: tuple[Project, Dataset]) -> None:
    """A whole training of a tiny base in a process of its own, against steps measured before."""
    project, dataset = home
    base = load_base(project, BASE_NAME)
    calibration = calibrate(project, shape_of(base.model.config, QUICK))
    assert all(point.peak_bytes > point.start_bytes > 0 for point in calibration.points)
    found = estimate_run(plan_run(dataset, base, QUICK), calibration)
    command = [sys.executable, "-c", RUN, str(project.root), dataset.id]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert found.peak_bytes == pytest.approx(int(done.stdout.split()[-1]), rel=TOLERANCE)
    assert found.seconds > 0 and found.tokens_per_s > 0
    assert np.isfinite(found.seconds)
