"""The local engine: real processes that outlive the daemon which started them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.clock import ManualClock
from daemons.engines.base import EngineError, JobState, NodeState, Submission
from daemons.engines.local import Local


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("not within 20 s")


def gone(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def sleeper(seconds: int = 60, **more: object) -> Submission:
    return Submission(name="s", command=("sleep", str(seconds)), nodes=1, **more)  # type: ignore[arg-type]


def test_a_job_runs_and_its_exit_code_is_known_to_another_daemon(tmp_path: Path) -> None:
    output = tmp_path / "%j.out"
    first = Local(tmp_path / "jobs", node="here")
    job = first.submit(
        Submission(
            name="x", command=("sh", "-c", "echo $WORD; exit 7"), nodes=("here",), environment={"WORD": "w"},
            output=str(output),
        )
    )  # fmt: skip
    later = Local(tmp_path / "jobs", node="here")
    until(lambda: later.job(job).state.over)
    found = later.job(job)
    assert (found.state, found.exit_code, found.signal, found.nodes) == (JobState.FAILED, 7, None, ("here",))
    assert Path(found.output).read_text() == "w\n"
    assert found.started <= found.ended


def test_success_signal_and_cancellation_are_told_apart(tmp_path: Path) -> None:
    engine = Local(tmp_path / "jobs")
    well = engine.submit(Submission(name="a", command=("true",), nodes=1))
    killed = engine.submit(Submission(name="b", command=("sh", "-c", "kill -9 $$"), nodes=1))
    stopped = engine.submit(sleeper())
    assert [job.id for job in engine.jobs() if job.name == "s"] == [stopped]
    engine.cancel(stopped)
    until(lambda: all(engine.job(job).state.over for job in (well, killed, stopped)))
    assert engine.job(well).state is JobState.COMPLETED
    assert (engine.job(killed).state, engine.job(killed).signal) == (JobState.FAILED, 9)
    assert engine.job(stopped).state is JobState.CANCELLED
    assert engine.jobs() == []
    engine.cancel(stopped)


def test_a_job_over_its_time_limit_is_ended_with_all_it_started(tmp_path: Path) -> None:
    clock = ManualClock(now=time.time())
    engine = Local(tmp_path / "jobs", clock=clock)
    child = tmp_path / "child"
    job = engine.submit(
        Submission(name="x", command=("sh", "-c", f"sleep 99 & echo $! > {child}; wait"), nodes=1, time_limit=30.0)
    )
    until(lambda: child.exists() and child.read_text().strip() != "")
    assert engine.job(job).state is JobState.RUNNING
    clock.advance(31)
    until(lambda: engine.job(job).state is JobState.TIMED_OUT)
    until(lambda: gone(child.read_text().strip()))


def test_drained_it_takes_no_jobs_until_it_is_opened(tmp_path: Path) -> None:
    engine = Local(tmp_path / "jobs", node="here", gpus=8)
    engine.drain("here", "gpu.lost")
    (node,) = engine.nodes()
    assert (node.state, node.reason, node.gpus, node.drained_by_us) == (NodeState.DRAINED, "muster: gpu.lost", 8, True)
    with pytest.raises(EngineError, match=r"here is drained \(muster: gpu.lost\)"):
        engine.submit(sleeper())
    engine.undrain("here")
    (node,) = engine.nodes()
    assert (node.state, node.reason) == (NodeState.IDLE, "")
    (tmp_path / "jobs/drained").write_text("somebody else")
    with pytest.raises(EngineError, match="not drained by muster"):
        engine.undrain("here")


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    engine = Local(tmp_path / "jobs", node="here")
    with pytest.raises(EngineError, match="asks for 2 nodes, this engine has one"):
        engine.submit(Submission(name="x", command=("true",), nodes=2))
    with pytest.raises(EngineError, match="no node is called 'other'; this machine is 'here'"):
        engine.drain("other", "x")
    with pytest.raises(EngineError, match="no queue"):
        engine.requeue("1")
    assert engine.job("none").state is JobState.UNKNOWN
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="Not a directory|File exists"):  # noqa: RUF043
        Local(tmp_path / "file")


def test_a_reused_pid_is_not_taken_for_the_job(tmp_path: Path) -> None:
    engine = Local(tmp_path / "jobs")
    job = engine.submit(sleeper())
    path = tmp_path / f"jobs/{job}.json"
    text = path.read_text()
    pid = int(text.split('"pid":')[1].split(",")[0])
    path.write_text(text.replace(f'"pid":{pid}', f'"pid":{os.getpid()}'))
    assert engine.job(job).state is JobState.UNKNOWN
    path.write_text(text)
    engine.cancel(job)
