"""A plain FSDP2 loop that imports nothing of ours, with faults to choose from: FAULT, and GUILTY for the rank."""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, Dataset

FAULT, GUILTY, AT = os.environ.get("FAULT", ""), int(os.environ.get("GUILTY", "1")), 20


class Samples(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> torch.Tensor:
        if FAULT == "worker" and os.environ["RANK"] == str(GUILTY) and index > AT * 8:
            time.sleep(1000)  # at: worker
        return torch.randn(64)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.spin, self.turns = False, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while self.spin:  # at: spin
            self.turns += 1
        y: torch.Tensor = self.b(torch.relu(self.a(x)))
        return x + y


def evaluate() -> None:
    time.sleep(25)


def fault(model: nn.Sequential, guilty: bool) -> None:
    if guilty and FAULT == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)  # at: stop
    if guilty and FAULT == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if guilty and FAULT == "memory":
        bytearray(1 << 50)  # at: memory
    if guilty and FAULT == "full":
        with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"checkpoint")  # at: full
    if guilty and FAULT == "spin":
        setattr(model[1], "spin", True)  # noqa: B010 (nn.Module takes no other attribute of mypy's)


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), Block(), Block(), nn.Linear(64, 64))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    batches = iter(DataLoader(Samples(), batch_size=8, num_workers=1 if FAULT == "worker" else 0))
    for step in range(int(os.environ.get("STEPS", "2000"))):
        if FAULT == "slow" and step == 0:
            time.sleep(15)  # a first step a hundred times slower
        if FAULT == "slow" and step == 30:
            evaluate()
        batch = next(batches)
        fault(model, rank == GUILTY and step == AT)
        loss = model(batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0 and step % 10 == 0:
            sys.stdout.write(f"step {step}\n")
        time.sleep(0.03)
    dist.destroy_process_group()


main()
