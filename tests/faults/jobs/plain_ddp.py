"""A plain DDP loop that imports nothing of ours, with faults to choose from: FAULT, and GUILTY for the rank."""

import ctypes
import os
import re
import sys
import threading
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

FAULT, GUILTY, AT = os.environ.get("FAULT", ""), int(os.environ.get("GUILTY", "2")), 20


def load_batch(step: int, guilty: bool) -> torch.Tensor:
    if guilty and FAULT == "data":
        time.sleep(1000)  # at: data
    if guilty and FAULT == "storage":
        open(os.environ["FIFO"]).read()  # noqa: SIM115, PTH123  at: storage
    return torch.randn(8, 64)


def train_step(step: int, guilty: bool, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    batch = load_batch(step, guilty)
    if guilty and FAULT == "regex":
        re.match(r"(a+)+$", "a" * 60 + "b")  # at: regex
    if guilty and FAULT == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()  # at: lock
    if guilty and FAULT == "exception":
        raise KeyError("no such token")  # at: exception
    if guilty and FAULT == "exit":
        sys.exit(7)  # at: exit
    if guilty and FAULT == "segv":
        ctypes.string_at(0)  # at: segv
    if FAULT == "skip" and step == AT and not guilty:
        dist.barrier()
    optimizer.zero_grad()
    loss: torch.Tensor = model(batch).pow(2).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # at: skip
    optimizer.step()
    return loss


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(64, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(int(os.environ.get("STEPS", "2000"))):
        loss = train_step(step, rank == GUILTY and step == AT, model, optimizer)
        if rank == 0 and step % 10 == 0:
            sys.stdout.write(f"step {step} loss {loss.item():.4f}\n")
        time.sleep(0.03)
    dist.destroy_process_group()


main()
