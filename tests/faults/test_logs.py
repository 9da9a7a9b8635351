"""Real jobs of four ranks that fail in known ways: cause and first rank must come from their logs alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

from classifiers.base import Verdict
from classifiers.engine import Engine
from classifiers.inputs import found, read

need("torch")

JOB = Path(__file__).parent / "jobs" / "faulty_job.py"
GUILTY = 2


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


def run(directory: Path, fault: str, master: str = "127.0.0.1", port: int = 0, **environment: str) -> None:
    """The job under torchrun, its output where torchrun and a shell would leave it."""
    logs = directory / "logs"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=4"]
    command += ["--log-dir", str(logs), "--redirects", "3", "--master-addr", master, "--master-port", str(port)]
    command += [str(JOB), fault, str(GUILTY), str(directory)]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with (directory / "launcher.log").open("wb") as out:
        env = os.environ | threads | environment
        subprocess.run(command, stdout=out, stderr=out, env=env, timeout=120, check=False, cwd=directory)


def verdict_of(engine: Engine, directory: Path) -> Verdict:
    logs = [path for path in (directory / "launcher.log", directory / "logs") if path.exists()]
    return read(engine, found(logs)).verdict()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("exception", "program.python"),
        ("exit_code", "program.python"),
        ("sigkill", "host.out_of_memory"),
        ("sigsegv", "host.kernel"),
        ("out_of_memory", "host.out_of_memory"),
        ("mismatched_collective", "program.collective_mismatch"),
        ("missing_collective", "net.collective_timeout"),
        ("disk_full", "storage.disk_full"),
        ("damaged_checkpoint", "storage.checkpoint"),
        ("nan", "program.numerics"),
        ("loader_killed", "host.out_of_memory"),
        ("too_many_files", "host.resource_limit"),
        ("missing_module", "program.environment"),
    ],
)
def test_cause_and_first_rank_of_a_real_job_come_from_its_logs(
    engine: Engine, tmp_path: Path, fault: str, cause: str
) -> None:
    detail = {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"} if fault == "mismatched_collective" else {}
    run(tmp_path, fault, port=free_port(), **detail)
    verdict = verdict_of(engine, tmp_path)
    assert (verdict.cause, verdict.rank) == (cause, GUILTY)


@pytest.mark.slow
@pytest.mark.torch
def test_a_port_in_use_is_the_rendezvous(engine: Engine, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run(tmp_path, "exception", port=taken.getsockname()[1])
    assert verdict_of(engine, tmp_path).cause == "net.rendezvous"


@pytest.mark.slow
@pytest.mark.torch
def test_an_unknown_master_is_the_rendezvous(engine: Engine, tmp_path: Path) -> None:
    command = [sys.executable, str(JOB), "exception", "2", str(tmp_path)]
    env = os.environ | {"MASTER_ADDR": "node-00.invalid", "MASTER_PORT": "29500", "RANK": "1", "WORLD_SIZE": "2"}
    with (tmp_path / "rank_1.log").open("wb") as out:
        subprocess.run(command, stdout=out, stderr=out, env=env, timeout=120, check=False)
    session = read(engine, found([tmp_path / "rank_1.log"]))
    assert (session.verdict().cause, session.verdict().rank) == ("net.rendezvous", 1)
