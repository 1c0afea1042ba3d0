"""What is shown before a run is what the run trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ownweights.core.project import Project
from ownweights.dataset import Dataset
from ownweights.model.tokenizer import Tokenizer
from ownweights.student.examples import TokenRow
from ownweights.student.preflight.preview import preview_run, show_row
from ownweights.student.train import load_base, plan_run
from tests.model.words import KINDS, tokenizer_of
from tests.student.zoo import QUICK, make_project
from tests.tiny import BASE_NAME


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    return make_project(tmp_path_factory.mktemp("home"))


def test_preview_shows_the_rows_that_are_trained(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    base = load_base(project, BASE_NAME)
    found, run = preview_run(dataset, base, QUICK), plan_run(dataset, base, QUICK)
    rows = {tuple(row.ids.tolist()): row for row in run.plan.rows}
    assert len(found.rows) == 3
    for shown in found.rows:
        row = rows[shown.ids]
        assert [at for at, one in enumerate(shown.trained) if one] == row.trained_at().tolist()
        (_, read), (is_trained, learned) = shown.runs()
        assert read.startswith("<|bos|><|user|>a ") and read.endswith("<|assistant|>")
        assert is_trained and learned.removesuffix("<|end|>") in read
    assert found.counts == run.counts
    assert found.settings["learning_rate"] == run.settings["learning_rate"]
    assert found.reasons.items() >= {"epochs": "as asked", "learning_rate": "as asked"}.items()
    assert found.reasons.keys() >= {"compute_dtype", "rank", "rows_per_step"}
    assert found.is_sound


def test_preview_trains_and_writes_nothing(home: tuple[Project, Dataset]) -> None:
    project, dataset = home
    before = sorted(path for path in project.root.rglob("*"))
    preview_run(dataset, load_base(project, BASE_NAME), QUICK)
    assert sorted(path for path in project.root.rglob("*")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_show_row_pieces_join_to_the_text(kind: str, tmp_path: Path) -> None:
    words = Tokenizer(tokenizer_of(kind, ["<|end|>"], ["<think>"]), {})
    text = "Grüße, <think>漢字 the cat"
    ids = [*words.encode(text), words.special_ids["<|end|>"]]
    shown = show_row(words, TokenRow(np.array(ids, np.int32), 3))
    assert len(shown.pieces) == len(ids) == len(shown.trained)
    joined = "".join(shown.pieces)
    assert joined.replace(" ", "") == (text + "<|end|>").replace(" ", "")
    assert [is_trained for is_trained, _ in shown.runs()] == [False, True]
