"""Prober and runner: children that answer, fail, are silent or end; warm, shared, bounded, and none left behind."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_node import Node

from checks.host import Host
from checks.prober import ProbeFailed, Prober, ProbeTimeout
from checks.registry import by_name
from checks.runner import run_check


@pytest.fixture
def prober() -> Iterator[Prober]:
    found = Prober()
    yield found
    children = found.pids()
    found.close()
    assert [pid for pid in children if Path(f"/proc/{pid}/stat").exists()] == []


def test_child_is_kept_warm_and_shared_by_the_doors_of_a_lane(prober: Prober) -> None:
    first = prober.call("mount:/a", "os:getpid", deadline=20.0)
    assert prober.call("mount:/b", "os:getpid", deadline=20.0) == first
    assert prober.pids() == [first]
    assert prober.call("rdma", "os:getpid", deadline=20.0) != first


def test_failure_is_told_and_the_child_lives_on(prober: Prober) -> None:
    pid = prober.call("mount:/a", "os:getpid", deadline=20.0)
    with pytest.raises(ProbeFailed, match=r"FileNotFoundError: \[Errno 2\] No such file or directory: '/no/such/path'"):
        prober.call("mount:/a", "os:statvfs", "/no/such/path", deadline=20.0)
    assert prober.pids() == [pid]


def test_silence_ends_the_child_at_the_deadline_and_the_next_call_gets_a_new_one(prober: Prober) -> None:
    pid = prober.call("mount:/a", "os:getpid", deadline=20.0)
    with pytest.raises(ProbeTimeout, match=r"mount:/a gave no answer within 0\.2 s"):
        prober.call("mount:/a", "time:sleep", 60, deadline=0.2)
    assert not Path(f"/proc/{pid}").exists()
    assert prober.hung() == {}
    assert prober.call("mount:/a", "os:getpid", deadline=20.0) != pid


def test_child_that_ends_by_itself_is_told_with_its_end(prober: Prober) -> None:
    with pytest.raises(ProbeFailed, match=r"mount:/a: the probe ended by itself \(exit code 7\)"):
        prober.call("mount:/a", "os:_exit", 7, deadline=20.0)
    pid = prober.call("mount:/a", "os:getpid", deadline=20.0)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert prober.call("mount:/a", "os:getpid", deadline=20.0) != pid


def test_callers_at_the_same_time_wait_for_the_child_that_is_there(prober: Prober) -> None:
    prober.call("mount:/a", "os:getpid", deadline=20.0)
    pids: list[int] = []
    callers = [
        threading.Thread(target=lambda: pids.append(prober.call("mount:/a", "os:getpid", deadline=20.0)))
        for _ in range(16)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(set(pids)) == 1


def test_a_silent_child_holds_the_next_caller_up_for_a_moment_only(prober: Prober) -> None:
    silent = threading.Thread(target=_silent, args=(prober,))
    silent.start()
    assert isinstance(prober.call("mount:/b", "os:getpid", deadline=20.0), int)
    assert silent.is_alive()  # it was not waited for
    silent.join()


def _silent(prober: Prober) -> None:
    with pytest.raises(ProbeTimeout):
        prober.call("mount:/a", "time:sleep", 60, deadline=4.0)


def test_run_keeps_what_was_found_before_the_trouble_and_leaves_memory_alone(tmp_path: Path) -> None:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    check = by_name("limits")
    node.write({"proc/sys/kernel/pid_max": "N/A"})
    memory = {"kept": 1}
    outcome = run_check(check, node.host, check.config(), memory)
    assert [(f.component, str(f.status)) for f in outcome.findings] == [
        ("limits/open_files", "ok"),
        ("check/limits", "unknown"),
    ]
    assert (outcome.looked, outcome.memory, memory) == (False, None, {"kept": 1})


def test_check_behind_a_door_runs_in_a_child_with_its_memory(tmp_path: Path) -> None:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    check = by_name("ib_port")
    host = Host(root=node.root, node="n1")  # not as a recording: those are read without a child
    try:
        outcome = run_check(check, host, check.config(), {})
        assert outcome.memory == {"best": {"mlx5_0/1": 400.0, "mlx5_1/1": 400.0, "mlx5_2/1": 100.0}}
        assert len(host.prober.pids()) == 1
        assert {finding.node for finding in outcome.findings} == {"n1"}
    finally:
        host.close()
