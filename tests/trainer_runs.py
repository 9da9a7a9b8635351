"""Starts the reference trainer as its users do: alone or under torchrun, on a text that every checkout has."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.beat.muster_beat import Record, read

ROOT = Path(__file__).parent.parent

# Tiny steps: starting is what takes the time.
SMALL = ("--sequence", "16", "--batch", "4", "--deterministic", "--warmup-steps", "5")


def text(directory: Path) -> Path:
    """A directory of training data that never changes: 11,358 bytes of licence, in two files."""
    data = directory / "text"
    data.mkdir()
    licence = (ROOT / "LICENSE").read_bytes()
    (data / "a.txt").write_bytes(licence[:5000])
    (data / "b.txt").write_bytes(licence[5000:])
    return data


def environment(**more: str) -> dict[str, str]:
    dropped = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "MUSTER_BEAT_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def command(ranks: int, arguments: Sequence[str]) -> list[str]:
    """`ranks` 0: one process without a launcher."""
    if not ranks:
        return [sys.executable, "-m", "trainer", *arguments]
    torchrun = shutil.which("torchrun", path=str(Path(sys.executable).parent)) or "torchrun"
    return [torchrun, "--standalone", "--nproc-per-node", str(ranks), "-m", "trainer", *arguments]


class Run:
    """A started trainer whose ranks' progress can be waited for."""

    def __init__(self, directory: Path, ranks: int, arguments: Sequence[str], **env: str) -> None:
        self.beats = directory / "beats"
        shutil.rmtree(self.beats, ignore_errors=True)
        self.output = directory / "output.txt"
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                command(ranks, arguments),
                env=environment(MUSTER_BEAT_DIR=str(self.beats), **env),
                cwd=directory,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def ranks(self) -> dict[int, Record]:
        return read(self.beats)

    def wait_for(self, reached: Callable[[dict[int, Record]], bool], seconds: float = 120.0) -> dict[int, Record]:
        """The ranks' records once `reached` says so; fails with the run's output if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not reached(records := self.ranks()):
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, (records, self.output.read_text())
            time.sleep(0.02)
        return records

    def wait_step(self, step: int, ranks: int = 1) -> dict[int, Record]:
        return self.wait_for(lambda r: len(r) == ranks and all((one.step or 0) >= step for one in r.values()))

    def kill(self) -> None:
        """SIGKILL to the launcher and every rank, as a node that loses power."""
        self.process.kill()
        for record in self.ranks().values():
            try:
                os.kill(record.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def wait(self, seconds: float = 120.0) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds} s: {self.output.read_text()}") from None


def finish(directory: Path, ranks: int, arguments: Sequence[str], **env: str) -> tuple[int, str]:
    """Run to the end: exit code and output."""
    run = Run(directory, ranks, arguments, **env)
    code = run.wait()
    return code, run.output.read_text()


def curve(log: Path) -> list[tuple[int, float, float, int]]:
    """(step, loss, grad_norm, tokens) of each line: everything that must not depend on time."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"], line["tokens"]) for line in lines]
