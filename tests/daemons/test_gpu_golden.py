"""The real agent on a healthy and on a sick GPU node: /metrics compared whole, and linted by promtool."""

import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest
from needs import need
from running_agent import RunningAgent
from scenarios import NODES

GOLDEN = Path(__file__).parents[1] / "golden"
# What differs from run to run and says nothing of the node: its value is replaced.
_VOLATILE = re.compile(
    r"^(muster_(?:start_time_seconds|check_duration_seconds|check_last_run_timestamp_seconds|check_runs_total"
    r"|check_last_success_timestamp_seconds|finding_first_seen_timestamp_seconds|node_boot_timestamp_seconds"
    r"|alerts_waiting|alerts_oldest_seconds)(?:\{.*\})?|process_\w+|muster_build_info\{.*\}) .*$",
    re.MULTILINE,
)
_VERSION = re.compile(r'version="[^"]*"')


def page_of(agent: RunningAgent) -> str:
    agent.all_checked()
    page = agent.get("/metrics").decode()
    return in_order(_VERSION.sub('version="VERSION"', _VOLATILE.sub(r"\1 VARIES", page)))


def in_order(page: str) -> str:
    """The page with the samples of each family sorted: which check ended first says nothing of the node."""
    families = itertools.groupby(page.splitlines(keepends=True), lambda line: line.startswith("#"))
    return "".join(line for comment, lines in families for line in (lines if comment else sorted(lines)))


@pytest.mark.parametrize("node", ["h100x8_whole_node", "h100x8_whole_node_dbe"])
def test_metrics_of_a_gpu_node_are_the_golden_ones(node: str, tmp_path: Path) -> None:
    agent = RunningAgent(tmp_path, replay=NODES / node)
    try:
        page = page_of(agent)
        raw = agent.get("/metrics")
    finally:
        assert agent.end() == 0
    golden = GOLDEN / f"metrics_{node}.prom"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(page)
    assert page == golden.read_text()
    need("promtool")
    done = subprocess.run(["promtool", "check", "metrics"], input=raw, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
