"""The real agent as a process: its /metrics compared whole, killed, reloaded, started twice."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_receiver import FleetReceiver
from needs import need
from running_agent import RunningAgent

ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests/fixtures/nodes/h100_host_healthy"
GOLDEN = ROOT / "tests/golden/metrics_h100_host_healthy.prom"

# What differs from run to run and says nothing of the node; each line of it is shown with its value replaced.
VOLATILE = re.compile(
    r"^(muster_(?:start_time_seconds|node_boot_timestamp_seconds|check_duration_seconds"
    r"|check_last_run_timestamp_seconds|check_last_success_timestamp_seconds|check_runs_total)(?:\{.*\})?"
    r"|process_\w+|muster_build_info\{.*\}) .*$",
    re.MULTILINE,
)
_VERSION = re.compile(r'version="[^"]*"')


def normalised(page: str) -> str:
    return _VERSION.sub('version="VERSION"', VOLATILE.sub(r"\1 VARIES", page))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    node = tmp_path / "node"
    shutil.copytree(NODE, node)
    running = RunningAgent(tmp_path, replay=node)
    yield running
    assert running.end() == 0


def test_metrics_of_a_recorded_node_are_the_golden_ones(agent: RunningAgent) -> None:
    agent.all_checked()
    page = normalised(agent.get("/metrics").decode())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(page)
    assert page == GOLDEN.read_text()


def test_metrics_pass_promtools_lint(agent: RunningAgent) -> None:
    need("promtool")
    agent.all_checked()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=agent.get("/metrics"), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def kernel_says(agent: RunningAgent, text: str) -> None:
    log = agent.directory / "node/dev/kmsg"
    last = [line for line in log.read_text().splitlines() if not line.startswith(" ")][-1]
    with log.open("a") as file:
        file.write(f"3,{int(last.split(',')[1]) + 1},900000000,-;{text}\n")


def test_a_kernel_event_is_kept_through_sigkill_and_read_only_once(agent: RunningAgent) -> None:
    agent.all_checked()
    kernel_says(agent, "nfs: server filer7 not responding, still trying")
    agent.said("opened kernel_log nfs/filer7")
    agent.kill()
    agent.start()
    agent.all_checked()
    (found,) = [f for f in agent.json("/findings")["open"] if f["source"] == "kernel_log"]
    assert (found["component"], found.get("count", 1)) == ("nfs/filer7", 1)
    assert "opened kernel_log" not in agent.log.read_text()


def test_findings_are_delivered_with_the_token_and_ended_by_an_ok(agent: RunningAgent) -> None:
    job = {"component": "job/7", "status": "fail", "cause": "program.python", "kind": "failed", "summary": "KeyError"}
    assert agent.post("/findings", [job]) == {"taken": 1}
    (found,) = [f for f in agent.json("/findings")["open"] if f["component"] == "job/7"]
    assert (found["source"], found["node"], len(found["fingerprint"])) == ("job", agent.json("/findings")["node"], 16)
    agent.kill()
    agent.start()
    assert [f["component"] for f in agent.json("/findings")["open"] if f["source"] == "job"] == ["job/7"]
    agent.post("/findings", [{**job, "status": "ok", "summary": "finished"}])
    assert [f for f in agent.json("/findings")["open"] if f["source"] == "job"] == []


def test_sighup_takes_the_new_file_and_a_bad_one_is_told(agent: RunningAgent) -> None:
    agent.all_checked()
    agent.config.write_text(agent.base + "[checks.memory]\nenabled = false\n")
    agent.process.send_signal(signal.SIGHUP)
    agent.said("reloaded: ")
    assert "memory" not in agent.json("/healthz")["checks"]
    agent.config.write_text(agent.base + "[checks.memory]\nenabled = 5\n")
    agent.process.send_signal(signal.SIGHUP)
    assert agent.said("not reloaded, the configuration before stays: (.*)") == (
        f"{agent.config}: checks.memory.enabled: 5 is wrong: expected `bool`, got `int`"
    )
    assert "memory" not in agent.json("/healthz")["checks"]


def test_a_second_agent_on_the_same_state_ends_in_one_line_and_the_first_goes_on(agent: RunningAgent) -> None:
    command = [sys.executable, "-I", "-m", "daemons", "--config", str(agent.config), "node"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (
        2,
        f"muster: {agent.state}: another agent uses it (pid {agent.process.pid}): stop that one, or set node.state to"
        " another directory\n",
    )
    agent.all_checked()


def test_a_port_that_is_taken_ends_in_one_line(agent: RunningAgent, tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text(f'[node]\nlisten = "{agent.address}"\nstate = "{tmp_path}/other"\n')
    command = [sys.executable, "-I", "-m", "daemons", "--config", str(config), "up"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"muster: node.listen: cannot listen on {agent.address}: Address already in use; set node.listen to a free port"
        " (0 takes any)\n",
    )


def test_up_prints_the_scan_then_the_addresses_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_text(f'[node]\nlisten = "127.0.0.1:0"\nstate = "{tmp_path}/state"\n')
    command = [sys.executable, "-I", "-m", "daemons", "--config", str(config), "up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("watching"):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0
    assert lines[0].split() == ["check", "status", "component", "what", "it", "saw"]
    assert [line.split()[0] for line in lines[-5:]] == ["status", "metrics", "health", "state", "watching;"]
    assert (tmp_path / "state/ledger.db").exists()


def test_the_fleet_gets_every_change_though_the_agent_is_killed_in_between(tmp_path: Path) -> None:
    fleet = FleetReceiver("secret")
    config = f'[fleet]\nurl = "{fleet.url}"\n'
    agent = RunningAgent(tmp_path, replay=NODE, config=config, environment={"MUSTER_FLEET_TOKEN": "secret"})
    try:
        for number in range(4):
            job = {"component": f"job/{number}", "status": "fail", "kind": "failed", "summary": "KeyError"}
            agent.post("/findings", [job])
            agent.kill()
            agent.start()
        fleet.wait_for("job/3")
        assert [name for *_, name in fleet.applied if name.startswith("job/")] == ["job/0", "job/1", "job/2", "job/3"]
    finally:
        assert agent.end() == 0
        fleet.end()
