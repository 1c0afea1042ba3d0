"""Several processes that train one student: who computes what, and how they stay alike.

In: what `torchrun` (or Ray) puts into the environment, or a process group that there is already.
Out: `Ranks`, handed to the trainer. Every process holds the whole model and the same batches; each
computes some parts of a step, and gradients, loss and costs are added up, so that every process
takes the same step (test_two_processes_reach_the_curve_of_one). The first alone writes and prints.
Processes whose run, checkpoint or batches differ are refused, not averaged
(test_processes_that_differ_are_refused). One that is lost ends the others with `RankError`
(test_killed_process_ends_the_others).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ownweights.core.errors import RankError, SettingsError

MEETING_TIME = timedelta(minutes=10)  # for all to arrive at first
WAITING_TIME = timedelta(days=7)  # while the first measures and writes; a dead one shows at once
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    world: int = 1
    group: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, sizes: Sequence[int]) -> list[int]:
        """Which parts this process computes, in order: the largest go to whoever has least."""
        loads, mine = [0] * self.world, list[int]()
        for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            lightest = loads.index(min(loads))
            loads[lightest] += sizes[index]
            if lightest == self.rank:
                mine.append(index)
        return sorted(mine)

    def sum(self, values: Tensor) -> Tensor:
        """The values of all processes, added in place."""
        if self.world > 1:
            with self._meeting():
                dist.all_reduce(values, group=self.group)
        return values

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: float) -> float:
        """Add up the gradients of all processes, and their losses.

        A parameter that no process has a gradient of keeps none.
        """
        if self.world == 1:
            return loss
        told = [loss, *(float(p.grad is not None) for p in parameters)]
        summed, *counts = self.sum(torch.tensor(told, dtype=torch.float64)).tolist()
        grads: list[Tensor] = []
        for parameter, count in zip(parameters, counts, strict=True):
            if count and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if count and parameter.grad is not None:
                grads.append(parameter.grad)
        with self._meeting():
            works = [dist.all_reduce(g, group=self.group, async_op=True) for g in grads]
            for work in works:
                if work is not None:
                    work.wait()
        return summed

    def agree(self, what: str, value: bytes | str | int) -> None:
        """Wait for all; each must say the same.

        Raises: RankError when one says something else
        """
        if self.world == 1:
            return
        data = value if isinstance(value, bytes) else str(value).encode()
        digest = sha256(data).digest()[:8]
        mine = torch.tensor([int.from_bytes(digest, "big", signed=True)])
        found = [torch.empty_like(mine) for _ in range(self.world)]
        with self._meeting():
            dist.all_gather(found, mine, group=self.group)
        others = [rank for rank, one in enumerate(found) if one.item() != found[0].item()]
        if others:
            raise RankError(
                f"{what} of process {others[0]} is not that of process 0, expected the same in all",
                hint="give all the same files, options and version; checkpoints need a folder that"
                " all of them see",
            )

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first does it, then the others, who find what it left."""
        if not self.is_first:
            self.agree("a turn", "")
        yield
        if self.is_first:
            self.agree("a turn", "")

    def tell(self, value: str = "") -> str:
        """What the first says, on all; the others wait for it."""
        said = [value]
        if self.world > 1:
            with self._meeting():
                dist.broadcast_object_list(said, src=0, group=self.group)
        return said[0]

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise RankError(
                f"process {self.rank} of {self.world} lost another one: {reason}",
                hint="look for what the others said; the same command goes on from the last"
                " checkpoint",
            ) from error


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """This process among those that the environment tells of, until the end of the block.

    All but the first are silent inside. A process group that there is already is used.
    Raises: SettingsError when the environment tells half; RankError when the others do not come
    """
    if dist.is_available() and dist.is_initialized():
        rank, world, is_ours = dist.get_rank(), dist.get_world_size(), False
    else:
        rank, world = _place(environment)
        is_ours = world > 1
    if world == 1:
        yield Ranks()
        return
    _divide_threads(environment)
    backend = _backend()
    try:
        if is_ours:
            dist.init_process_group(backend, rank=rank, world_size=world, timeout=MEETING_TIME)
        group = dist.new_group(backend=backend, timeout=WAITING_TIME)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RankError(f"process {rank} of {world} did not meet the others: {reason}") from error
    try:
        with ExitStack() as silence:
            if rank:
                nowhere = silence.enter_context(open(os.devnull, "w", encoding="utf-8"))
                silence.enter_context(redirect_stdout(nowhere))
                silence.enter_context(redirect_stderr(nowhere))
            yield Ranks(rank, world, group)
    finally:
        if is_ours:
            dist.destroy_process_group()


def _place(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank and world as `torchrun` says them; alone where it says nothing."""
    if "WORLD_SIZE" not in environment:
        return 0, 1
    try:
        world = int(environment["WORLD_SIZE"])
        rank = int(environment.get("RANK", "0" if world == 1 else ""))
    except ValueError:
        rank, world = -1, 0
    lacking = [name for name in _NEEDED if world > 1 and not environment.get(name)]
    if lacking or not 0 <= rank < world:
        told = ", ".join(f"{name}={environment.get(name)!r}" for name in _NEEDED)
        raise SettingsError(
            f"the environment tells of several processes, but not which one this is: {told}",
            hint="start them with torchrun, or unset WORLD_SIZE to train with one",
        )
    return rank, world


def _divide_threads(environment: Mapping[str, str]) -> None:
    """Share the cores of the machine among its processes, unless a number of threads is asked for.

    torchrun writes OMP_NUM_THREADS=1 where nobody said anything, so that counts as nothing.
    """
    if environment.get("OMP_NUM_THREADS", "1") == "1":
        here = int(environment.get("LOCAL_WORLD_SIZE") or 1)
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here))


def _backend() -> str:
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
