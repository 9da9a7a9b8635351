"""The skeleton of a daemon, with real signals and a real notify socket."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.lifecycle import Due, Notifier, Schedule

ROOT = Path(__file__).parents[2]


class Running:
    """A small daemon under something that listens as systemd does."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.config = directory / "config"
        self.config.write_text("one")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(directory / "notify"))
        self.socket.settimeout(10)
        env = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
            "NOTIFY_SOCKET": str(directory / "notify"),
            **environment,
        }
        command = [sys.executable, str(ROOT / "tests/small_daemon.py"), str(self.config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)

    def told(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")

    def told_until(self, word: str) -> list[str]:
        while word not in (told := self.told()):
            pass
        return told

    def end(self, number: int = signal.SIGTERM) -> tuple[int, list[str]]:
        """Signal it; exit code and its log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=10)
        return self.process.returncode, log.splitlines()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    daemon = Running(tmp_path)
    yield daemon
    if daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.communicate()
    daemon.socket.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_ready_and_stopping_and_every_step_of_the_end_is_tried(running: Running, number: int) -> None:
    assert running.told() == ["READY=1", "STATUS=at one"]
    code, log = running.end(number)
    assert running.told_until("STOPPING=1") == ["STOPPING=1"]
    assert code == 0
    assert f"small: ending: {signal.Signals(number).name}" in log
    assert "small: could not close the first" in log
    assert log[-1] == "second closed"


def test_sighup_takes_the_new_file(running: Running) -> None:
    running.told_until("READY=1")
    running.config.write_text("two")
    running.process.send_signal(signal.SIGHUP)
    reloading = running.told_until("RELOADING=1")
    assert reloading[1].startswith("MONOTONIC_USEC=")
    assert running.told() == ["READY=1", "STATUS=at two"]
    code, log = running.end()
    assert code == 0
    assert "reloaded: now two" in log


def test_a_bad_new_file_keeps_the_configuration_before_and_says_why(running: Running) -> None:
    running.told_until("READY=1")
    running.config.write_text("wrong")
    running.process.send_signal(signal.SIGHUP)
    running.told_until("RELOADING=1")
    assert running.told() == ["READY=1", "STATUS=at one"]
    _, log = running.end()
    said = "not reloaded, the configuration before stays: config: beat: 'wrong' is wrong: expected a word"
    assert log.count(said) == 1
    assert "Traceback" not in log[log.index(said) + 1]


def test_a_bug_in_a_cycle_is_told_and_does_not_end_it(running: Running) -> None:
    running.told_until("READY=1")
    running.config.write_text("broken")
    running.process.send_signal(signal.SIGHUP)
    running.told_until("STATUS=at broken")
    raised = running.config.with_name("raised")
    end = time.monotonic() + 10
    while not raised.exists() and time.monotonic() < end:
        time.sleep(0.01)
    running.config.write_text("mended")
    running.process.send_signal(signal.SIGHUP)
    running.told_until("STATUS=at mended")
    code, log = running.end()
    assert code == 0
    assert log.index("RuntimeError: a bug") < log.index("reloaded: now mended")


def test_the_watchdog_is_fed_while_the_loop_turns_and_not_when_it_hangs(tmp_path: Path) -> None:
    daemon = Running(tmp_path, WATCHDOG_USEC="200000")
    try:
        for _ in range(3):
            assert daemon.told_until("WATCHDOG=1") == ["WATCHDOG=1", "STATUS=at one"]
        daemon.config.write_text("hang")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.told_until("STATUS=at hang")
        daemon.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            daemon.told()
    finally:
        daemon.process.kill()
        daemon.process.communicate()
        daemon.socket.close()


def test_without_systemd_it_tells_nobody() -> None:
    quiet = Notifier({"WATCHDOG_USEC": "1000000"})
    quiet.tell(READY=1)
    assert quiet.watchdog_seconds == 0


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    told = {"NOTIFY_SOCKET": "/none", "WATCHDOG_USEC": "1000000"}
    assert Notifier({**told, "WATCHDOG_PID": "1"}).watchdog_seconds == 0
    assert Notifier({**told, "WATCHDOG_PID": str(os.getpid())}).watchdog_seconds == 0.5
    Notifier(told).tell(READY=1)  # nobody listens any more: not our trouble


def test_an_abstract_notify_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0muster-test-{os.getpid()}-{time.monotonic_ns()}")
        name = listener.getsockname().decode()
        Notifier({"NOTIFY_SOCKET": "@" + name[1:]}).tell(READY=1, STATUS="well")
        assert listener.recv(100) == b"READY=1\nSTATUS=well"


# The schedule


def test_times_do_not_drift_however_late_each_run_is() -> None:
    schedule = Schedule()
    schedule.put("a", 10, 100)
    assert schedule.due(99.9) == []
    times = []
    for _ in range(5):
        times.append(schedule.next())
        schedule.due(schedule.next() + 3)
    assert times == [100, 110, 120, 130, 140]


def test_what_was_missed_is_left_out_and_counted() -> None:
    schedule = Schedule()
    schedule.put("a", 10, 100)
    assert schedule.due(135) == [Due("a", 35, 3)]
    assert schedule.next() == 140


def test_the_longest_waiting_is_first_and_a_dropped_one_never() -> None:
    schedule = Schedule()
    schedule.put("a", 10, 103)
    schedule.put("b", 10, 101)
    schedule.put("c", 10, 100)
    schedule.drop("c")
    assert [due.name for due in schedule.due(105)] == ["b", "a"]
    assert Schedule().next() == float("inf")


def test_another_interval_takes_hold_at_once_and_the_same_changes_nothing() -> None:
    schedule = Schedule()
    schedule.put("a", 3600, 100)
    schedule.due(100)
    schedule.put("a", 3600, 200)
    assert schedule.next() == 3700
    schedule.put("a", 10, 200)
    assert schedule.next() == 210


@given(interval=st.floats(0.1, 100), looks=st.lists(st.floats(0, 500), max_size=30))
def test_runs_and_missed_times_together_are_all_the_times_there_were(interval: float, looks: list[float]) -> None:
    schedule = Schedule()
    schedule.put("a", interval, 0.0)
    now, ran = 0.0, 0
    for look in looks:
        now += look
        ran += sum(1 + due.missed for due in schedule.due(now))
        assert schedule.next() > now
        assert abs(schedule.next() - ran * interval) < 1e-6 * (1 + now)
