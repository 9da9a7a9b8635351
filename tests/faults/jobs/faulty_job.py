"""A small training job of several ranks on gloo that fails in a way of choice; its logs are what the tests read.

Usage: torchrun ... faulty_job.py FAULT RANK DIRECTORY
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

FAULT, GUILTY, PLACE = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])


class Samples(Dataset[float]):
    """Samples whose worker kills itself at the fourth."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> float:
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.5


def exception(model: torch.nn.Module) -> None:
    {"tokens": 1}["token"]


def exit_code(model: torch.nn.Module) -> None:
    sys.exit(17)


def sigkill(model: torch.nn.Module) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sigsegv(model: torch.nn.Module) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def out_of_memory(model: torch.nn.Module) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    torch.empty(1 << 40, dtype=torch.uint8)


def mismatched_collective(model: torch.nn.Module) -> None:
    dist.all_reduce(torch.ones(3))


def missing_collective(model: torch.nn.Module) -> None:
    time.sleep(100)


def disk_full(model: torch.nn.Module) -> None:
    with open("/dev/full", "wb") as file:  # noqa: PTH123
        torch.save(model.state_dict(), file)


def damaged_checkpoint(model: torch.nn.Module) -> None:
    path = PLACE / f"step_10_{dist.get_rank()}.pt"
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:600])
    model.load_state_dict(torch.load(path))


def nan(model: torch.nn.Module) -> None:
    loss = torch.tensor(float("nan"))
    if not torch.isfinite(loss):
        raise FloatingPointError(f"loss is {loss.item()} at step 3")


def loader_killed(model: torch.nn.Module) -> None:
    # Plain numbers: no file descriptors are on their way between the processes when the worker dies.
    for _ in DataLoader(Samples(), num_workers=1, collate_fn=list):
        pass


def too_many_files(model: torch.nn.Module) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    kept = [open("/dev/null") for _ in range(100)]  # noqa: PTH123, SIM115
    assert kept


def missing_module(model: torch.nn.Module) -> None:
    __import__("flash_attn_that_is_not_here")


FAULTS: dict[str, Callable[[torch.nn.Module], None]] = {
    one.__name__: one
    for one in (
        *(exception, exit_code, sigkill, sigsegv, out_of_memory, mismatched_collective, missing_collective, disk_full),
        *(damaged_checkpoint, nan, loader_killed, too_many_files, missing_module),
    )
}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=5))
    model = torch.nn.Linear(4, 4)
    for step in range(6):
        if step == 3 and dist.get_rank() == GUILTY:
            FAULTS[FAULT](model)
        total = torch.ones(64)
        dist.all_reduce(total)
        sys.stdout.write(f"step {step} loss {1 / (step + 1):.3f} world {int(total[0])}\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
