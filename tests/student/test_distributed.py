"""Several processes over loopback: the curve of one, checkpoints of either, and what may fail."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ownweights.core.artefact import list_artefacts
from ownweights.core.errors import SettingsError
from ownweights.core.project import Project
from ownweights.dataset import Dataset
from ownweights.student.distributed import Ranks, joined
from ownweights.weights.load import read_file
from tests.student.together import OPTIONS, environment_of_children, losses_of, train_together
from tests.student.zoo import WORKLOAD, make_project
from tests.tiny import make_base

# gradients summed in another order, carried through a few dozen steps
LOSS_REL, WEIGHT_ABS = 1e-4, 1e-4
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "adamw": {"optimiser": "adamw", "hard_frac": 1.0},
    "full": {"method": "full"},
    "dpo": {"objective": "dpo", "learning_rate": 0.005},
    "on-policy": {"objective": "on-policy", "teacher": "big", "max_answer_tokens": 4,
                  "epochs": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Dataset]:
    folder = tmp_path_factory.mktemp("home")
    make_base(folder / "big", 5)
    return make_project(folder)


def copied(home: tuple[Project, Dataset], folder: Path) -> Path:
    shutil.copytree(home[0].root, folder)
    return folder


def weights_of(root: Path) -> dict[str, torch.Tensor]:
    """The weights of the only student."""
    (student,) = list_artefacts(Project(root).kind_dir("student"), "student")
    names = ("adapter_model.safetensors", "model.safetensors")
    (path,) = (student.path / name for name in names if (student.path / name).is_file())
    return read_file(path)


def assert_alike(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=WEIGHT_ABS)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_reach_the_curve_of_one(
    tmp_path: Path, home: tuple[Project, Dataset], kind: str
) -> None:
    roots = {world: copied(home, tmp_path / str(world)) for world in (1, 2)}
    for world, root in roots.items():
        ended = train_together(root, home[1].id, world, **KINDS[kind])
        assert [status for status, _ in ended] == [0] * world, ended
    curve = losses_of(roots[1])
    assert len(curve) >= 3 and len(set(curve)) == len(curve)
    assert losses_of(roots[2]) == pytest.approx(curve, rel=LOSS_REL)
    assert losses_of(roots[2], 1) == losses_of(roots[2])
    assert_alike(roots[1], roots[2])


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 2)])
def test_checkpoint_is_resumed_by_another_number_of_processes(
    tmp_path: Path, home: tuple[Project, Dataset], first: int, then: int
) -> None:
    whole, broken = copied(home, tmp_path / "whole"), copied(home, tmp_path / "broken")
    assert [status for status, _ in train_together(whole, home[1].id, then)] == [0] * then
    died = train_together(broken, home[1].id, first, die=dict.fromkeys(range(first), 9))
    assert [status for status, _ in died] == [-signal.SIGKILL] * first
    (work,) = Project(broken).kind_dir("student").iterdir()
    assert json.loads((work / "progress.json").read_text("utf-8"))["step"] == 8
    ended = train_together(broken, home[1].id, then)
    assert [status for status, _ in ended] == [0] * then, ended
    assert losses_of(broken) == pytest.approx(losses_of(whole)[8:], rel=LOSS_REL)
    assert_alike(broken, whole)
    if first == then:
        ours, theirs = weights_of(broken), weights_of(whole)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("killed", [0, 1])
def test_killed_process_ends_the_others(
    tmp_path: Path, home: tuple[Project, Dataset], killed: int
) -> None:
    root, other = copied(home, tmp_path / "root"), 1 - killed
    ended = train_together(root, home[1].id, 2, die={killed: 3})
    assert ended[killed][0] == -signal.SIGKILL
    assert ended[other][0] == 1
    assert f"RankError: process {other} of 2 lost another one: " in ended[other][1]
    assert "the same command goes on from the last checkpoint" in ended[other][1]
    assert not list_artefacts(Project(root).kind_dir("student"), "student")


def test_processes_with_other_options_are_refused(
    tmp_path: Path, home: tuple[Project, Dataset]
) -> None:
    root = copied(home, tmp_path / "root")
    ended = train_together(root, home[1].id, 2, of_ranks={1: {"seed": 2}})
    for status, said in ended:
        assert status == 1
        assert "RankError: the run of process 1 is not that of process 0" in said


def test_torchrun_of_the_command_prints_once(tmp_path: Path, home: tuple[Project, Dataset]) -> None:
    root = copied(home, tmp_path / "root")
    lines = [f"[student.{WORKLOAD}]", *(
        f"{name} = {json.dumps(value)}" for name, value in OPTIONS.items()
        if name != "checkpoint_every_s"
    )]  # fmt: skip
    (root / "own.toml").write_text("\n".join(lines) + "\n", "utf-8")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
             "ownweights.cli", "--project", str(root), "student", "train", "--workload", WORKLOAD,
             "--json"]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, *words], env=environment_of_children(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (student,) = list_artefacts(Project(root).kind_dir("student"), "student")
    (line,) = ended.stdout.splitlines()
    assert json.loads(line)["id"] == student.id
    assert student.card["facts"]["processes"] == 2
    assert ended.stderr.count("learning_rate = ") == 1


# --- alone


@given(sizes=st.lists(st.integers(1, 1000), max_size=40), world=st.integers(1, 5))
def test_shares_always_part_all_the_work(sizes: list[int], world: int) -> None:
    shares = [Ranks(rank, world).share(sizes) for rank in range(world)]
    assert sorted(i for share in shares for i in share) == list(range(len(sizes)))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(sizes[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_ranks_of_one_process_change_nothing() -> None:
    ranks = Ranks()
    parameter = torch.nn.Parameter(torch.ones(2))
    assert ranks.sum_gradients([parameter], 1.5) == 1.5
    assert parameter.grad is None
    ranks.agree("it", "anything")
    with ranks.in_turn():
        assert ranks.tell("abc") == "abc"
    assert ranks.sum(torch.tensor([1.0])).item() == 1.0


@pytest.mark.parametrize("environment", [{}, {"RANK": "3"}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_joined_is_alone_where_nothing_else_is_said(environment: dict[str, str]) -> None:
    with joined(environment) as ranks:
        assert ranks == Ranks()


WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    "change",
    [{"RANK": ""}, {"RANK": "2"}, {"RANK": "-1"}, {"RANK": "x"}, {"WORLD_SIZE": "0"},
     {"WORLD_SIZE": "two"}, {"MASTER_ADDR": ""}, {"MASTER_PORT": ""}],
    ids=str,
)  # fmt: skip
def test_joined_refuses_half_an_environment(change: dict[str, str]) -> None:
    message = "tells of several processes, but not which one this is: RANK=.*\nhint: start them"
    with pytest.raises(SettingsError, match=message), joined({**WHOLE, **change}):
        pass
