"""What classifying costs: throughput on one core against ripgrep, a thousand ranks, a cold start, memory.

MUSTER_BENCH_GB sets the size of the mixed log (default 1), MUSTER_BENCH_RANKS the ranks of 10 MB each (default 1024).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from classifiers import rulebook

GB = float(os.environ.get("MUSTER_BENCH_GB", "1"))
RANKS = int(os.environ.get("MUSTER_BENCH_RANKS", "1024"))
STEP = (
    "2026-11-21 06:04:{:02d},255 [rank{}] INFO iter {}: loss {:.4f}, grad_norm 0.402, lr 3.0e-04, tokens/s 18342,"
    " time 118.60ms\n"
)
NCCL = "gpu-{:02d}:77102:77331 [{}] NCCL INFO Channel {:02d}/0 : {}[7] -> {}[0] [receive] via NET/IB/0/GDRDMA\n"
TRACEBACK = (
    "[rank{0}]: Traceback (most recent call last):\n"
    '[rank{0}]:   File "/srv/train.py", line 210, in main\n'
    "[rank{0}]:     batch = next(loader)\n"
    "[rank{0}]: KeyError: 'input_ids'\n"
)


def mixed(size: int) -> bytes:
    """About `size` bytes as a job writes them: training lines, NCCL INFO, and a traceback every half megabyte."""
    lines = []
    for index in range(5000):
        lines.append(STEP.format(index % 60, index % 8, index, 4.5 - index / 5000))
        if index % 4 == 0:
            lines.append(NCCL.format(index % 32, index % 8, index % 16, index % 8, (index + 1) % 8))
    lines.append(TRACEBACK.format(3))
    block = "".join(lines).encode()
    return block * (size // len(block) + 1)


def classify(path: Path, *arguments: str, cores: str = "0") -> tuple[float, int, dict[str, object]]:
    """Seconds, peak resident bytes and verdict of `muster classify` on the path, tied to the cores."""
    code = (
        "import os, sys, time\n"
        f"os.sched_setaffinity(0, {{{cores}}})\n"
        "started = time.perf_counter()\n"
        "from daemons.cli import main\n"
        "try: main(['classify', '--json', *sys.argv[1:]])\n"
        "finally:\n"
        "    status = open('/proc/self/status').read()\n"
        "    peak = int(status.split('VmHWM:')[1].split()[0]) * 1024\n"
        "    sys.stderr.write(f'{time.perf_counter() - started} {peak}')\n"
    )
    command = [sys.executable, "-I", "-c", code, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    seconds, peak = done.stderr.split()
    return float(seconds), int(peak), json.loads(done.stdout)


@pytest.mark.timeout(900)
def test_throughput_on_one_core_against_ripgrep(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    path.write_bytes(mixed(int(GB * 1e9)))
    size = path.stat().st_size
    classify(path)  # warms page cache and rule cache
    seconds, peak, verdict = min(classify(path) for _ in range(3))
    assert verdict["cause"] == "program.python"
    print(f"\nclassify: {size / 1e9:.2f} GB in {seconds:.2f} s = {size / seconds / 1e9:.2f} GB/s, {peak / 1e6:.0f} MB")
    print(f"ripgrep with the same patterns: {ripgrep(path, tmp_path):.2f} GB/s")


def ripgrep(path: Path, directory: Path) -> float:
    """GB/s of ripgrep on one core with the rules' patterns; 0.0 where it is not installed."""
    if shutil.which("rg") is None:
        return 0.0
    patterns = directory / "patterns"
    unnamed = (re.sub(r"\(\?P<\w+>", "(?:", rule.pattern) for rule in rulebook.read().rules)
    patterns.write_text("".join(f"(?:{pattern})\n" for pattern in unnamed))
    command = ["taskset", "-c", "0", "rg", "-a", "-j1", "--no-unicode", "-c", "-f", str(patterns), str(path)]
    best = 1e9
    for _ in range(2):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        best = min(best, time.perf_counter() - started)
        assert done.returncode in (0, 1), done.stderr[-200:]
    return path.stat().st_size / best / 1e9


@pytest.mark.timeout(900)
def test_a_thousand_ranks_of_ten_megabytes(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < RANKS * 11e6:
        pytest.skip(f"needs {RANKS * 11 / 1000:.0f} GB of disk")
    content = mixed(10_000_000)
    for rank in range(RANKS):
        (tmp_path / f"rank_{rank}.log").write_bytes(content)
    classify(tmp_path, cores="0, 1")
    seconds, peak, verdict = classify(tmp_path, cores="0, 1")
    assert (verdict["cause"], verdict["bytes"]) == ("program.python", RANKS * len(content))
    print(f"\n{RANKS} ranks, {verdict['bytes']} bytes: {seconds:.1f} s on two cores, {peak / 1e6:.0f} MB")


def test_a_short_log_from_a_cold_start(tmp_path: Path) -> None:
    path = tmp_path / "short.log"
    path.write_bytes(b"".join(mixed(20_000).splitlines(keepends=True)[:100]))
    command = [sys.executable, "-I", "-m", "daemons", "classify", "--json", str(path)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    times = []
    for _ in range(10):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        assert json.loads(done.stdout)["cause"] == "none"
        times.append(time.perf_counter() - started)
    print(
        f"\n100 lines: {1000 * min(times):.0f} ms at best, {1000 * sorted(times)[5]:.0f} ms in the middle, all included"
    )
