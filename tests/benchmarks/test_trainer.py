"""What checkpoints and the beat cost a training step, as ratios within one run."""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import need

need("torch")

import torch  # noqa: E402 (after the check for torch)
import torch.distributed as dist  # noqa: E402

from trainer.beat.muster_beat import Beat  # noqa: E402
from trainer.checkpoint import Checkpoints, State  # noqa: E402
from trainer.distributed import World, join  # noqa: E402

ROUNDS = 7
STEP = 0.05  # seconds: the step that the goal for the beat is stated for


@pytest.fixture
def world() -> Iterator[World]:
    yield join(60.0)
    dist.destroy_process_group()


def median(action: Callable[[int], Any], rounds: int = ROUNDS) -> float:
    """Seconds of the median of `rounds` calls after one that does not count."""
    times = []
    for number in range(rounds + 1):
        begun = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def checkpoints(directory: Path, world: World, *, synchronous: bool) -> Checkpoints:
    made = Checkpoints(directory, world, 2, 0, 1, print, synchronous=synchronous)
    made.open()
    return made


def test_saves_and_resumption(tmp_path: Path, world: World) -> None:
    """384 MB of state, as 32 M parameters with AdamW have."""
    state: State = {f"tensor.{number}": torch.randn(1 << 20) for number in range(96)}
    waiting = checkpoints(tmp_path / "a", world, synchronous=True)
    sync = median(lambda n: waiting.save(n, state, {"step": n}))
    waiting.close()
    beside = checkpoints(tmp_path / "b", world, synchronous=False)

    def stall(number: int) -> None:
        begun = time.perf_counter()
        beside.save(number, state, {"step": number})
        beside.staging_wait()
        stalls.append(time.perf_counter() - begun)
        beside.settle()  # not counted: in a run it is over long before the next save

    stalls: list[float] = []
    for number in range(ROUNDS + 1):
        stall(number)
    blocked = statistics.median(stalls[1:])

    def resume(_: int) -> None:
        found = beside.find()
        assert found is not None
        beside.load(found[0], state)

    loaded = median(resume)
    beside.close()
    shutil.rmtree(tmp_path)
    print(f"\nsynchronous save {1000 * sync:.0f} ms; asynchronous blocks {1000 * blocked:.0f} ms: {blocked / sync:.1%}")
    print(f"find, verify and load {1000 * loaded:.0f} ms: {loaded / sync:.2f} x a save")


def test_beat(tmp_path: Path) -> None:
    beat = Beat(tmp_path, 0)

    def thousand(_: int) -> None:
        for step in range(1000):
            beat.beat(step=step, tokens=step, loss=1.0, step_seconds=0.05, data_seconds=0.001)

    seconds = median(thousand) / 1000
    print(f"\na beat takes {1e6 * seconds:.1f} us: {seconds / STEP:.3%} of a {1000 * STEP:.0f} ms step")
