"""The processes of a run: who this one is, how they talk, and how long they wait for each other."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from trainer.errors import TrainerError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """This process among the others. Two groups of their own keep checkpoints and control off the training's group:
    a save that runs beside training would otherwise mix its collectives with the step's and hang both."""

    rank: int
    local_rank: int
    size: int
    local_size: int
    device: torch.device
    mesh: DeviceMesh
    control: dist.ProcessGroup
    saves: dist.ProcessGroup

    @property
    def nodes(self) -> int:
        return max(1, self.size // self.local_size)


def join(start_timeout: float) -> World:
    """Join the run that torchrun (or any launcher that sets RANK and MASTER_ADDR) describes, or be one alone.

    `start_timeout`: seconds a collective may take until `shorten` is called; start-up loads data and compiles.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    timeout = timedelta(seconds=start_timeout)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
    size = dist.get_world_size()
    return World(
        rank=dist.get_rank(),
        local_rank=local_rank,
        size=size,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", size)),
        device=device,
        mesh=init_device_mesh(device.type, (size,)),
        control=dist.new_group(backend="gloo", timeout=timeout),
        saves=dist.new_group(backend="gloo", timeout=timeout),
    )


def shorten(world: World, step_timeout: float) -> None:
    """From here on a collective that takes longer than `step_timeout` seconds means that a rank is stuck.

    The group of the saves keeps its long timeout: one slow disk may hold up a save for minutes.
    """
    dist.barrier(group=world.control)
    for group in (dist.group.WORLD, world.control):
        # torch has no public call for this; torchtitan and the tests of torch use the same one.
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=step_timeout), group)


def ask_one(world: World, ask: Callable[[], T]) -> T:
    """What rank 0 answers, on every rank. An error of rank 0 is raised on every rank, so that nobody waits for it."""
    answer: list[tuple[T | None, TrainerError | None]] = [(None, None)]
    if world.rank == 0:
        try:
            answer = [(ask(), None)]
        except TrainerError as error:
            answer = [(None, error)]
    if world.size > 1:
        dist.broadcast_object_list(answer, src=0, group=world.control)
    value, failure = answer[0]
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]  # None only where T says so


class Votes:
    """Agreement of all ranks on what to do after a step, without waiting for it within the step.

    Each rank casts its votes at the end of a step; they are counted at the end of the next, when they have long
    arrived. All ranks count the same votes after the same step, so all act alike: a signal that reaches one rank
    only, or rank 0's clock, becomes a decision of all, one step later.
    """

    def __init__(self, world: World, names: tuple[str, ...]) -> None:
        self._world, self._names = world, names
        self._ballot = torch.zeros(len(names), dtype=torch.int32)
        self._work: dist.Work | None = None

    def count(self) -> set[str]:
        """What any rank voted for a step ago."""
        if self._work is not None:
            self._work.wait()
        return {name for name, votes in zip(self._names, self._ballot.tolist(), strict=True) if votes}

    def cast(self, votes: set[str]) -> None:
        self._ballot = torch.tensor([int(name in votes) for name in self._names], dtype=torch.int32)
        if self._world.size > 1:
            self._work = dist.all_reduce(self._ballot, dist.ReduceOp.MAX, group=self._world.control, async_op=True)
