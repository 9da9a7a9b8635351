"""Real traffic by resident workers, here over loopback: rates, workers that die or stop, and the end of all of them."""

import os
import signal
import time
from pathlib import Path

import pytest
from needs import need

from checks.pairs.drive import Driver
from checks.pairs.launch import Crew, Place, Worker, WorkerError, WorkerLate
from checks.pairs.runner import Answer, Outcome, Rate
from checks.pairs.runners.torch_pairs import TorchPairs
from checks.pairs.sweep import Budget, Sweep
from checks.pairs.topology import flat


def here(*names: str) -> list[Place]:
    return [Place(node=name, address="127.0.0.1") for name in names]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_a_pair_is_measured_both_ways_with_its_content_checked() -> None:
    need("torch")
    with Crew(here("a", "b"), warm="torch") as crew:
        assert crew.ready(60) == []
        outcome = TorchPairs(crew, window=0.2, message=1 << 16).measure("a", "b")
    assert outcome.answer is Answer.MEASURED
    for rate in (*outcome.forth, *outcome.back):
        assert rate.gigabytes > 0
        assert rate.damaged == 0


def test_a_stopped_worker_is_silence_within_the_time_limit_and_is_ended() -> None:
    need("torch")
    with Crew(here("a", "b"), warm="torch") as crew:
        assert crew.ready(60) == []
        pids = [worker.pid for worker in crew.workers.values()]
        os.kill(crew.workers["b"].pid, signal.SIGSTOP)
        outcome = TorchPairs(crew, window=0.1, message=1 << 16, setup=0.5).measure("a", "b")
        assert outcome.answer is Answer.SILENT
    assert not any(alive(pid) for pid in pids)


def test_a_worker_that_was_killed_is_silence_and_its_partner_lives_on() -> None:
    need("torch")
    with Crew(here("a", "b", "c"), warm="torch") as crew:
        assert crew.ready(60) == []
        os.kill(crew.workers["b"].pid, signal.SIGKILL)
        runner = TorchPairs(crew, window=0.1, message=1 << 16, setup=1.0)
        assert runner.measure("a", "b").answer is Answer.SILENT
        assert runner.measure("a", "c").answer is Answer.MEASURED


def test_workers_end_when_their_coordinator_is_gone() -> None:
    worker = Worker("a", (), {})
    assert worker.ready(30)
    worker.close_input()
    worker.end()
    assert not alive(worker.pid)


def test_an_order_nobody_answers_is_late_and_a_dead_worker_says_so() -> None:
    worker = Worker("a", (), {})
    try:
        assert worker.ready(30)
        order = {"do": "command", "command": ["sleep", "30"], "deadline": 30}
        with pytest.raises(WorkerLate, match=r"no answer within 0\.2 s"):
            worker.order(order, 0.2)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="the worker has ended"):
            worker.order(order, 5)
    finally:
        worker.end()


def test_a_tool_that_is_not_installed_is_an_answer() -> None:
    worker = Worker("a", (), {})
    try:
        assert worker.ready(30)
        answer = worker.order({"do": "command", "command": ["no-such-tool"], "deadline": 5}, 10)
        assert answer == {"error": "no-such-tool: not installed"}
    finally:
        worker.end()


class Scripted:
    """A runner that answers by table: some pairs hang for a while, some tools are broken."""

    name = "scripted"

    def __init__(self, hangs: str = "", seconds: float = 0.0, broken: str = "") -> None:
        self.hangs, self.seconds, self.broken = hangs, seconds, broken

    def measure(self, a: str, b: str) -> Outcome:
        if self.hangs in (a, b):
            time.sleep(self.seconds)
            return Outcome(a=a, b=b, answer=Answer.SILENT, note="no answer")
        if self.broken in (a, b):
            return Outcome(a=a, b=b, answer=Answer.UNKNOWN, note="iperf3: not installed")
        rate = [Rate(gigabytes=10.0)]
        return Outcome(a=a, b=b, answer=Answer.MEASURED, forth=rate, back=rate)


NAMES = [f"n{i}" for i in range(8)]


def test_a_pair_that_hangs_costs_no_other_pair_its_time() -> None:
    driver = Driver(Sweep(flat(NAMES), Budget(rounds=6, most=12), 0), Scripted("n3", 1.0))
    started = time.monotonic()
    driver.run()
    # With a barrier every one of the 12 rounds would cost the second that n3's pair hangs.
    assert time.monotonic() - started < 11
    assert len(driver.outcomes) > 20
    assert [verdict.component for verdict in driver.sweep.localiser.verdicts if verdict.blames] == ["node/n3"]
    assert driver.sweep.localiser.verdicts[0].percent == 100.0


def test_a_broken_tool_is_unknown_and_blames_nobody() -> None:
    driver = Driver(Sweep(flat(NAMES), Budget(rounds=6, most=12), 0), Scripted(broken="n3"))
    driver.run()
    assert driver.sweep.localiser.verdicts == []
    assert {outcome.note for outcome in driver.outcomes if "n3" in (outcome.a, outcome.b)} == {"iperf3: not installed"}
