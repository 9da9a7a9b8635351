"""Three hosts in network namespaces, a real torchrun rendezvous between them, and the link of one that is cut."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import need

need("torch", "ip", "root")
pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.root, pytest.mark.timeout(280)]

JOB = Path(__file__).parent / "jobs" / "plain_ddp.py"
NAME = f"mh{os.getpid()}"
HOSTS = (1, 2, 3)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


@pytest.fixture
def hosts() -> Iterator[None]:
    """NAME-1 to NAME-3, each with eth0 on one bridge in NAME-sw."""
    names = [f"{NAME}-sw", *(f"{NAME}-{i}" for i in HOSTS)]
    for name in names:
        ip("netns", "add", name)
    try:
        ip("-n", names[0], "link", "add", "br0", "type", "bridge")
        ip("-n", names[0], "link", "set", "br0", "up")
        for i in HOSTS:
            ip("-n", names[i], "link", "set", "lo", "up")
            ip("link", "add", "eth0", "netns", names[i], "type", "veth", "peer", "name", f"sw{i}", "netns", names[0])
            ip("-n", names[i], "addr", "add", f"10.91.0.{i}/24", "dev", "eth0")
            ip("-n", names[i], "link", "set", "eth0", "up")
            ip("-n", names[0], "link", "set", f"sw{i}", "master", "br0")
            ip("-n", names[0], "link", "set", f"sw{i}", "up")
        yield
    finally:
        for name in names:
            ip("netns", "del", name)


def start(i: int, directory: Path) -> subprocess.Popen[bytes]:
    config = directory / f"host{i}.toml"
    config.write_text(f'[node]\nname = "host{i}"\nstate = "{directory}/state{i}"\n')
    muster = [sys.executable, "-I", "-m", "daemons", "--config", str(config), "run", "--leader", "10.91.0.1:7070"]
    muster += ["--stuck-terminate-after", "0", "--stop-grace", "3", "--record", str(directory / f"{i}.json"), "--"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "3", "--nproc-per-node", "1"]
    torchrun += ["--node-rank", str(i - 1), "--master-addr", "10.91.0.1", "--master-port", "29511", str(JOB)]
    network = {"GLOO_SOCKET_IFNAME": "eth0", "MUSTER_JOB_TOKEN": "0123456789abcdef", "OMP_NUM_THREADS": "1"}
    with (directory / f"{i}.out").open("wb") as out:
        command = ["ip", "netns", "exec", f"{NAME}-{i}", *muster, *torchrun]
        return subprocess.Popen(command, env=os.environ | network | {"STEPS": "100000"}, stdout=out, stderr=out)


def test_a_host_whose_link_is_cut_is_named_by_all_three(hosts: None, tmp_path: Path) -> None:
    running = [start(i, tmp_path) for i in HOSTS]
    for _ in range(1200):
        if "step 50 " in (tmp_path / "1.out").read_text():
            break
        time.sleep(0.1)
    ip("-n", f"{NAME}-sw", "link", "set", "sw3", "down")
    for one in running:
        one.wait(timeout=120)
    for i in HOSTS:
        (attempt,) = json.loads((tmp_path / f"{i}.json").read_text())["attempts"]
        verdict = attempt["verdict"]
        said = (verdict["kind"], verdict["doing"], verdict["host"], verdict["ranks"])
        assert said == ("stuck", "network", "host3", [2]), (tmp_path / f"{i}.out").read_text()[-3000:]
