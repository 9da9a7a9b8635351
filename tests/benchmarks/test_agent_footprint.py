"""What the node agent costs: memory, CPU, scrape time, start of a scan.

MUSTER_BENCH_SECONDS sets how long the agent is watched (default 600, as docs/benchmarks.md states).
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import process_cost
import pytest

SECONDS = float(os.environ.get("MUSTER_BENCH_SECONDS", "600"))


class RunningAgent:
    """A real `muster node` at default intervals."""

    def __init__(self, directory: Path) -> None:
        config = directory / "muster.toml"
        config.write_text(f'[node]\nlisten = "127.0.0.1:0"\nstate = "{directory}/state"\n')
        command = [sys.executable, "-I", "-m", "daemons", "--config", str(config), "node"]
        self.log = (directory / "log").open("w+")
        self.process = subprocess.Popen(command, stderr=self.log)
        self.address = self._address(directory / "log")

    def _address(self, log: Path) -> str:
        for _ in range(200):
            if found := re.search(r"http://(\S+:\d+)", log.read_text()):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(f"the agent did not say where it listens: {log.read_text()}")

    def cpu_seconds(self) -> float:
        """User and system time of the agent, its children and those that have ended."""
        return process_cost.cpu_seconds(self.process.pid)

    def bytes_of(self, what: str) -> list[int]:
        """Rss or Pss of each process of the family."""
        return [process_cost.bytes_of(pid, what) for pid in process_cost.family(self.process.pid)]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    running = RunningAgent(tmp_path)
    yield running
    running.process.terminate()
    assert running.process.wait(timeout=10) == 0
    running.log.close()


@pytest.mark.timeout(SECONDS + 120)
def test_memory_and_cpu_at_default_intervals(agent: RunningAgent) -> None:
    time.sleep(5)
    before, started = agent.cpu_seconds(), time.monotonic()
    peaks = []
    while time.monotonic() - started < SECONDS:
        time.sleep(min(5, SECONDS / 4))
        peaks.append((agent.bytes_of("Rss")[0], sum(agent.bytes_of("Pss"))))
    share = (agent.cpu_seconds() - before) / (time.monotonic() - started)
    rss, pss = max(p[0] for p in peaks), max(p[1] for p in peaks)
    print(
        f"\nover {SECONDS:.0f} s: agent RSS at most {rss / 1e6:.1f} MB ({peaks[0][0] / 1e6:.1f} MB at first), "
        f"with its warm children {pss / 1e6:.1f} MB (PSS), CPU {share:.3%} of one core"
    )
    assert share > 0


def test_scrape(agent: RunningAgent) -> None:
    time.sleep(3)
    times = []
    for _ in range(500):
        started = time.perf_counter()
        with urllib.request.urlopen(f"http://{agent.address}/metrics") as answer:
            page = answer.read()
        times.append((time.perf_counter() - started) * 1e3)
    cuts = statistics.quantiles(times, n=100)
    print(f"\nscrape of {len(page)} bytes: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms of 500")
    assert page


def test_cold_scan() -> None:
    times = []
    for _ in range(10):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-I", "-m", "daemons", "scan", "--json"], capture_output=True, check=False
        )
        times.append(time.perf_counter() - started)
        assert json.loads(done.stdout)["findings"]
    print(f"\ncold `muster scan`: median {statistics.median(times):.2f} s, worst {max(times):.2f} s of 10")
    assert times
