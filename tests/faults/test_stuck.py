"""Real torchrun jobs of four ranks that import nothing of ours, each with one fault: kind, rank, host, line, reason.

Three jobs run at a time, since most of a hang is waiting; every test waits for its own.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from needs import need

from checks.host import short_host_name

need("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(600)]

JOBS = Path(__file__).parent / "jobs"
MUSTER = [sys.executable, "-I", "-m", "daemons", "run", "--stuck-terminate-after", "0", "--stop-grace", "3"]


class Case(msgspec.Struct, frozen=True):
    """script, fault: what runs. kind, doing, cause: what is to be said of it. line: whether the line can be known.
    always: whether it runs in every test run; the others do with MUSTER_FAULTS=all."""

    script: str
    fault: str
    kind: str
    doing: str
    cause: str
    line: bool = True
    always: bool = True


ALL_CASES = [
    Case("plain_ddp", "data", "stuck", "data", "data.loader"),
    Case("plain_ddp", "storage", "stuck", "storage", "storage.filesystem", always=False),
    Case("plain_ddp", "regex", "stuck", "python", "program.python"),
    Case("plain_ddp", "lock", "stuck", "lock", "program.python", always=False),
    Case("plain_ddp", "skip", "stuck", "collective", "program.collective_mismatch"),
    Case("plain_fsdp", "stop", "stuck", "stopped", "host.preempted"),
    Case("plain_fsdp", "worker", "stuck", "data", "data.loader"),
    Case("plain_fsdp", "spin", "stuck", "python", "program.python", always=False),
    Case("plain_ddp", "exception", "failed", "python", "program.python", always=False),
    Case("plain_ddp", "exit", "failed", "python", "program.python"),
    Case("plain_ddp", "segv", "failed", "dead", "", always=False),
    Case("plain_fsdp", "kill", "failed", "dead", "", line=False),
    Case("plain_fsdp", "memory", "failed", "python", "host.out_of_memory", always=False),
    Case("plain_fsdp", "full", "failed", "storage", "storage.disk_full"),
]
CASES = [case for case in ALL_CASES if case.always or os.environ.get("MUSTER_FAULTS") == "all"]
HARMLESS = Case("plain_fsdp", "slow", "finished", "", "none", line=False)


class Ran(msgspec.Struct, frozen=True):
    """A job that is over: what was recorded, what was told."""

    verdict: dict[str, Any]
    told: str


def run(case: Case, directory: Path) -> Ran:
    """The job under `muster run`, to its end."""
    fifo = directory / "never-written"
    os.mkfifo(fifo)
    faults = {"FAULT": case.fault, "FIFO": str(fifo), "OMP_NUM_THREADS": "1"}
    steps = {"STEPS": "60"} if case is HARMLESS else {}
    record = directory / "record.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    command = [
        *MUSTER,
        "--dir",
        str(directory),
        "--record",
        str(record),
        "--",
        *torchrun,
        str(JOBS / f"{case.script}.py"),
    ]
    done = subprocess.run(
        command, env=os.environ | faults | steps, capture_output=True, text=True, timeout=300, check=False
    )
    told = "\n".join(line for line in done.stderr.splitlines() if line.startswith("muster "))
    attempts = json.loads(record.read_text())["attempts"]
    assert len(attempts) == 1, done.stderr[-4000:]
    return Ran(attempts[0]["verdict"], told)


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ran]]]:
    """The jobs of the tests that were selected, as they become ready."""
    chosen = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    cases = [HARMLESS if spec is None else spec.params["case"] for spec in chosen]
    with ThreadPoolExecutor(max_workers=3) as pool:
        yield {case.fault: pool.submit(run, case, tmp_path_factory.mktemp(case.fault)) for case in cases}


def line_of(case: Case) -> int:
    lines = (JOBS / f"{case.script}.py").read_text().splitlines()
    (found,) = [n for n, text in enumerate(lines, 1) if text.endswith(f"at: {case.fault}")]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.script}-{case.fault}")
def test_the_guilty_rank_and_its_line_are_named(case: Case, jobs: dict[str, Future[Ran]]) -> None:
    ran = jobs[case.fault].result()
    verdict = ran.verdict
    assert (verdict["kind"], verdict["doing"]) == (case.kind, case.doing), ran.told
    assert verdict["ranks"] == [2 if case.script == "plain_ddp" else 1], ran.told
    assert verdict["host"] == short_host_name()
    if case.cause:
        assert verdict["cause"] == case.cause
    if case.line:
        assert verdict["file"] == str(JOBS / f"{case.script}.py")
        assert verdict["line"] - line_of(case) in ((0, 1) if case.fault == "spin" else (0,)), "a loop of two lines"
    if case.kind == "stuck":
        # Found by the job's own habits, not at the end of some grace.
        assert 10.0 <= verdict["detected_after_seconds"] < 60.0
        bundle_is_whole(Path(verdict["bundle"]), case)


def bundle_is_whole(bundle: Path, case: Case) -> None:
    """Written before the end: all ranks in one tree, their collectives, and an archive of it all."""
    assert (bundle / "README.txt").read_text().startswith("Job ")
    stacks = (bundle / "stacks.txt").read_text()
    assert sorted(map(int, re.findall(r"\d+", " ".join(re.findall(r"<- ranks (.*)", stacks))))) == [0, 1, 2, 3]
    assert "collective" in (bundle / "README.txt").read_text() or case.fault != "skip"
    recorder = (bundle / "flight_recorder.txt").read_text()
    answered = [rank for rank in range(4) if f"rank {rank} group" in recorder]
    assert answered == ([0, 2, 3] if case.fault == "stop" else [0, 1, 2, 3])
    with tarfile.open(bundle.with_suffix(".tar.gz")) as archive:
        assert {Path(name).name for name in archive.getnames()} >= {path.name for path in bundle.iterdir()}


def test_a_slow_first_step_and_a_long_evaluation_alarm_nobody(jobs: dict[str, Future[Ran]]) -> None:
    ran = jobs["slow"].result()
    assert ran.verdict["kind"] == "finished", ran.told
    assert "stuck" not in ran.told
