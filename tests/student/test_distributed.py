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
from tests.student.together import (
    OPTIONS,
    Ended,
    Job,
    environment_of_children,
    run_job,
    run_together,
)  # fmt: skip
from tests.student.zoo import WORKLOAD, make_project
from tests.tiny import make_base

# gradients summed in another order, carried through a few dozen steps
LOSS_REL, WEIGHT_ABS = 1e-4, 1e-4
STOP_AT = 5
RAY_RECIPE = Path(__file__).parents[2] / "recipes" / "ray_train.py"
Together = dict[str, tuple[Path, Ended, Ended]]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "adamw": {"optimiser": "adamw", "hard_frac": 1.0},
    "full": {"method": "full"},
    "dpo": {"objective": "dpo", "learning_rate": 0.005},
    "on-policy": {"objective": "on-policy", "teacher": "big", "max_answer_tokens": 4,
                  "epochs": 1},
}  # fmt: skip


Home = tuple[Project, Dataset]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    make_base(folder / "big", 5)
    return make_project(folder)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Together:
    """Every job of this file that two processes do and survive, done by the same two."""
    folder = tmp_path_factory.mktemp("together")

    def job(name: str, **how: Any) -> Job:
        root = folder / name
        if not root.exists():
            shutil.copytree(home[0].root, root)
        return Job(str(root), home[1].id, **how)

    for name in ("one, then two", "stopped"):
        assert run_job(job(name, stop_at=STOP_AT), Ranks()).error == "KeyboardInterrupt: "
    jobs = {
        **{kind: job(kind, options=options) for kind, options in KINDS.items()},
        "two": job("two, then one", stop_at=STOP_AT),
        "then two": job("one, then two"),
        "other seed": job("other seed", of_second={"seed": 2}),
        "other folder": job("stopped", of_second={"root": job("elsewhere").root}),
        "other batches": job("other batches", options=KINDS["on-policy"], of_second={"mute": True}),
        "two first": job("two, then two", stop_at=STOP_AT),
        "two again": job("two, then two"),
    }
    ended = run_together(folder / "ended", list(jobs.values()))
    assert [status for status, _ in ended] == [0, 0]
    return {
        name: (Path(one.root), ended[0][1][k], ended[1][1][k])
        for k, (name, one) in enumerate(jobs.items())
    }


def weights_of(root: Path) -> dict[str, torch.Tensor]:
    """The weights of the only student."""
    (student,) = list_artefacts(Project(root).kind_dir("student"), "student")
    names = ("adapter_model.safetensors", "model.safetensors")
    (path,) = (student.path / name for name in names if (student.path / name).is_file())
    return read_file(path)


def assert_alike(one: Path, other: Path, *, atol: float = WEIGHT_ABS) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_reach_the_curve_of_one(
    tmp_path: Path, home: Home, together: Together, kind: str
) -> None:
    shutil.copytree(home[0].root, tmp_path / "one")
    curve = run_job(Job(str(tmp_path / "one"), home[1].id, KINDS[kind]), Ranks()).losses
    root, first, second = together[kind]
    assert len(curve) >= 4 and len(set(curve)) == len(curve)
    assert first.losses == pytest.approx(curve, rel=LOSS_REL)
    assert second == first
    assert_alike(root, tmp_path / "one")


@pytest.mark.parametrize("name", ["two", "then two", "two again"])
def test_checkpoint_is_resumed_by_another_number_of_processes(
    home: Home, together: Together, name: str
) -> None:
    root, first, second = together[name]
    if name == "two":
        assert first.error == second.error == "KeyboardInterrupt: "
        (work,) = Project(root).kind_dir("student").iterdir()
        assert json.loads((work / "progress.json").read_text("utf-8"))["step"] == STOP_AT - 1
        first = run_job(Job(str(root), home[1].id), Ranks())
    whole, curve, _ = together["lora"]
    assert first.error == ""
    assert first.losses == pytest.approx(curve.losses[STOP_AT - 1 :], rel=LOSS_REL)
    assert_alike(root, whole, atol=0 if name == "two again" else WEIGHT_ABS)


@pytest.mark.parametrize(
    ("name", "what"),
    [("other seed", "the run"), ("other folder", "the checkpoint"),
     ("other batches", "the batch of step 1")],
)  # fmt: skip
def test_processes_that_differ_are_refused(together: Together, name: str, what: str) -> None:
    message = f"RankError: {what} of process 1 is not that of process 0, expected the same in all"
    for ended in together[name][1:]:
        assert isinstance(ended, Ended)
        assert ended.error.startswith(message)


@pytest.mark.parametrize("killed", [0, 1])
def test_killed_process_ends_the_others(tmp_path: Path, home: Home, killed: int) -> None:
    root, other = tmp_path / "root", 1 - killed
    shutil.copytree(home[0].root, root)
    ended = run_together(tmp_path / "ended", [Job(str(root), home[1].id, {}, 3, killed)])
    assert ended[killed] == (-signal.SIGKILL, [])
    assert ended[other][0] == 0
    (said,) = ended[other][1]
    assert said.error.startswith(f"RankError: process {other} of 2 lost another one: ")
    assert "the same command goes on from the last checkpoint" in said.error
    assert not list_artefacts(Project(root).kind_dir("student"), "student")


def settled(home: Home, root: Path) -> Path:
    """A copy of the project, with the options of these tests in its settings."""
    shutil.copytree(home[0].root, root)
    table = {name: value for name, value in OPTIONS.items() if name != "checkpoint_every_s"}
    lines = [f"[student.{WORKLOAD}]", *(f"{n} = {json.dumps(v)}" for n, v in table.items())]
    (root / "own.toml").write_text("\n".join(lines) + "\n", "utf-8")
    return root


def run_here(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=environment_of_children() | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_torchrun_of_the_command_prints_once(tmp_path: Path, home: Home) -> None:
    root = settled(home, tmp_path / "root")
    ended = run_here(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
        "ownweights.cli", "--project", str(root), "student", "train", "--workload", WORKLOAD,
        "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (student,) = list_artefacts(Project(root).kind_dir("student"), "student")
    (line,) = ended.stdout.splitlines()
    assert json.loads(line)["id"] == student.id
    assert student.card["facts"]["processes"] == 2
    assert ended.stderr.count("learning_rate = ") == 1


def test_ray_train_recipe_reaches_the_same_student(
    tmp_path: Path, home: Home, together: Together
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[train]'")
    if not RAY_RECIPE.is_file():
        pytest.skip("recipes are not part of the wheel")
    root = settled(home, tmp_path / "root")
    words = ["--processes", "2", "--project", str(root), "--workload", WORKLOAD]
    # a busy machine takes long to start Ray
    ended = run_here(str(RAY_RECIPE), *words, RAY_raylet_start_wait_time_s="300")
    assert ended.returncode == 0, ended.stderr
    assert_alike(root, together["lora"][0])


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
