"""What watching a node with eight GPUs and eight HCAs costs, and what one NVML call that never returns takes from it.

MUSTER_BENCH_SECONDS sets how long each agent is watched (default 600). Recorded answers stand for a node of its own in
the first; in the others the real pynvml loads the NVML library of tests in the agent's child.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nvml import FakeNvml, tree_of
from needs import need
from process_cost import bytes_of, cpu_seconds, family
from replayed_life import live
from running_agent import RunningAgent
from scenarios import NODES

from checks.registry import CHECKS
from daemons.config import Config

SECONDS = float(os.environ.get("MUSTER_BENCH_SECONDS", "600"))
NODE = NODES / "h100x8_training"


def watch(agent: RunningAgent, what: str) -> None:
    pid = agent.process.pid
    time.sleep(5)
    before, started, sizes = cpu_seconds(pid), time.monotonic(), []
    while time.monotonic() - started < SECONDS:
        time.sleep(min(5, SECONDS / 4))
        sizes.append((bytes_of(pid, "Rss"), sum(bytes_of(one, "Pss") for one in family(pid)), len(family(pid))))
    share = (cpu_seconds(pid) - before) / (time.monotonic() - started)
    print(
        f"\n{what}, {SECONDS:.0f} s: agent RSS {sizes[0][0] / 1e6:.1f} MB at first, at most "
        f"{max(s[0] for s in sizes) / 1e6:.1f} MB; with {max(s[2] for s in sizes) - 1} children "
        f"{max(s[1] for s in sizes) / 1e6:.1f} MB (PSS); CPU {share:.3%} of one core"
    )


@pytest.fixture
def replayed(tmp_path: Path) -> Iterator[RunningAgent]:
    agent = RunningAgent(tmp_path, replay=NODE)
    yield agent
    agent.process.terminate()
    agent.process.wait(timeout=20)


@pytest.mark.timeout(SECONDS + 120)
def test_memory_and_cpu_of_a_replayed_node(replayed: RunningAgent) -> None:
    watch(replayed, "8 GPUs and 8 HCAs replayed")
    assert replayed.process.poll() is None


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    need("cc")
    return FakeNvml(tmp_path, tree_of(NODES / "h100x8_healthy"))


@pytest.fixture
def with_nvml(tmp_path: Path, fake: FakeNvml) -> Iterator[RunningAgent]:
    agent = RunningAgent(tmp_path, environment=dict(fake.environment))
    yield agent
    agent.process.terminate()
    agent.process.wait(timeout=20)


@pytest.mark.timeout(SECONDS + 120)
def test_memory_and_cpu_with_nvml(with_nvml: RunningAgent) -> None:
    watch(with_nvml, "8 GPUs through pynvml and a library of tests")
    assert with_nvml.process.poll() is None


def value(page: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.timeout(SECONDS + 240)
def test_one_call_that_never_returns(with_nvml: RunningAgent, fake: FakeNvml) -> None:
    time.sleep(10)
    tree = tree_of(NODES / "h100x8_healthy")
    tree["gpus"][2]["temperature"] = {"missing": "hung"}
    fake.answer(tree)
    started, opened, most = time.monotonic(), 0.0, 0
    page = with_nvml.get("/metrics").decode()
    names = [check.name for check in CHECKS if Config().check(check.name).enabled]
    runs = {name: value(page, f'muster_check_runs_total{{check="{name}"}}') for name in names}
    while time.monotonic() - started < max(SECONDS, 150):
        time.sleep(1)
        most = max(most, len(family(with_nvml.process.pid)) - 1)
        page = with_nvml.get("/metrics").decode()
        if not opened and 'check="gpu_count",component="gpu/2",status="fail"' in page:
            opened = time.monotonic() - started
    seconds = time.monotonic() - started
    late = {}
    for name in names:
        due = seconds / Config().check(name).interval
        missed = due - (value(page, f'muster_check_runs_total{{check="{name}"}}') - runs[name])
        if missed > 1:
            late[name] = f"{missed:.1f} of {due:.0f}"
    print(
        f"\na call that never returns, {seconds:.0f} s: the finding is open after {opened:.0f} s; "
        f"at most {most} children; runs missed: {late or 'none'}"
    )
    assert opened


@pytest.mark.timeout(3600)
def test_memory_over_a_simulated_day(tmp_path: Path) -> None:
    sizes: dict[int, int] = {}
    started = time.process_time()

    def measure(at: float) -> None:
        sizes.setdefault(int(at // 3600), bytes_of(os.getpid(), "Rss"))

    live(
        "h100x8_training",
        tmp_path,
        CHECKS,
        seconds=86_400,
        quiet_step=15.0,
        each=measure,
    )
    print(
        f"\na day in steps of 15 s ({time.process_time() - started:.0f} s of CPU): RSS after 1, 2, 12, 24 h: "
        + ", ".join(f"{sizes[hour] / 1e6:.1f}" for hour in (1, 2, 12, 24))
        + " MB"
    )
    assert sizes


def scans(*arguments: str, environment: dict[str, str] | None = None) -> list[tuple[float, float]]:
    times = []
    for _ in range(10):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-I", "-m", "daemons", "scan", "--json", *arguments],
            capture_output=True,
            check=False,
            env={**os.environ, **(environment or {})},
        )
        times.append((time.perf_counter() - started, json.loads(done.stdout)["seconds"]))
    return times


def test_scan_of_such_a_node(fake: FakeNvml) -> None:
    for what, times in (
        ("replayed", scans("--replay", str(NODE))),
        ("through pynvml", scans(environment=dict(fake.environment))),
    ):
        whole, checks = ([pair[part] for pair in times] for part in (0, 1))
        print(
            f"\nscan of 8 GPUs {what}: median {statistics.median(whole):.2f} s, worst {max(whole):.2f} s of 10; "
            f"the checks alone {statistics.median(checks):.2f} s"
        )
        assert times
