"""InfiniBand checks on a simulated fabric: faults made there are seen, by the tools and below /sys/class/infiniband."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ib_simulator import Fabric, fabric
from needs import need

need("ibsim", "root")

COUNTERS = {
    "SymbolErrorCounter": "symbol_error",
    "LinkDownedCounter": "link_downed",
    "PortXmitDiscards": "port_xmit_discards",
}
WATCHER = Path(__file__).parent.parent / "fabric_watcher.py"


class Watcher:
    """The checks in a process of its own that keeps their memory between looks, as the agent does."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: object) -> list[list[str]]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, list)
        return answer

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def sysfs(network: Fabric, host: str) -> dict[str, str]:
    """The host's card as the kernel would show it, from what the real tools say of it."""
    said = dict(line.strip().split(": ", 1) for line in network.ask("ibstat", host=host).splitlines() if ": " in line)
    numbers = {"Active": 4, "Down": 1, "Initializing": 2, "LinkUp": 5, "Polling": 2}
    state, physical = said["State"], said["Physical state"]
    base = "infiniband/mlx5_0"
    files = {
        f"{base}/board_id": "MT_0000000223",
        f"{base}/fw_ver": "20.39.2048",
        f"{base}/ports/1/state": f"{numbers[state]}: {state.upper()}",
        f"{base}/ports/1/phys_state": f"{numbers[physical]}: {physical}",
        f"{base}/ports/1/rate": "200 Gb/sec (4X HDR)",
        f"{base}/ports/1/link_layer": "InfiniBand",
    }
    lid = said["Base lid"]  # asked from node1, whose link stays
    for line in network.ask("perfquery", lid, "1").splitlines():
        name, _, value = line.partition(":")
        if name in COUNTERS:
            files[f"{base}/ports/1/counters/{COUNTERS[name]}"] = value.strip(".")
    return files


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    with fabric(tmp_path_factory.mktemp("ibsim")) as found:
        yield found


def test_the_whole_fabric_is_watched_by_the_real_tools(network: Fabric) -> None:
    names = ["ib_fabric"]
    watcher = Watcher([sys.executable, str(WATCHER)], network.environment())
    try:
        assert watcher.ask(look=names) == []
        network.command('PerformanceSet "leaf1"[17] PortCounters.SymbolErrorCounter=40')
        network.until(lambda text: "SymbolErrorCounter == 40" in text, "ibqueryerrors")
        counted = [
            "fabric/leaf1/17",
            "warn",
            "symbol_error",
            "leaf1/17: symbol_error rose by 40 within the hour, limit 10",
        ]
        assert watcher.ask(look=names) == [counted]
        network.command('Unlink "leaf2"[20]')
        network.until(lambda text: text.count("LinkUp") == 30, "iblinkinfo", "-l")
        gone = ["fabric/leaf2/20", "fail", "gone", "leaf2/20: link to spine2/4 is gone"]
        assert watcher.ask(look=names) == [gone, counted]
        network.command('ReLink "leaf2"[20]')
        network.until(lambda text: text.count("Active/  LinkUp") == 32, "iblinkinfo", "-l")
        assert watcher.ask(look=names) == [counted]
    finally:
        watcher.close()


def test_a_link_that_trained_low_is_named_beside_its_peers(tmp_path: Path) -> None:
    with fabric(tmp_path, slow=True) as network:
        watcher = Watcher([sys.executable, str(WATCHER)], network.environment())
        try:
            said = "leaf1/18: link to spine1/2 runs at 53.125 Gb/s, 212.5 Gb/s is usual for its kind"
            assert watcher.ask(look=["ib_fabric"]) == [["fabric/leaf1/18", "warn", "slow", said]]
        finally:
            watcher.close()


def test_a_hosts_own_port_below_a_private_sys(network: Fabric, tmp_path: Path) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    mount = f"mount -t overlay muster -o lowerdir=/sys/class,upperdir={upper},workdir={work} /sys/class"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" "$1"', sys.executable, str(WATCHER)]
    names = ["ib_port", "ib_flap", "ib_counters"]
    watcher = Watcher(command, network.environment())
    try:
        assert watcher.ask(write=sysfs(network, "node5"), look=names) == []
        network.command('PerformanceSet "node5"[1] PortCounters.SymbolErrorCounter=25')
        network.command('PerformanceSet "node5"[1] PortCounters.LinkDownedCounter=4')
        network.until(lambda text: "LinkDownedCounter == 4" in text, "ibqueryerrors")
        assert watcher.ask(write=sysfs(network, "node5"), look=names) == [
            ["ib/mlx5_0/1", "warn", "flapping", "mlx5_0/1 lost its link 4 times within a day"],
            ["ib/mlx5_0/1", "warn", "symbol_error", "mlx5_0/1: symbol_error rose by 25 within the hour, limit 10"],
        ]
        network.command('Unlink "node5"')
        network.until(lambda text: "State: Down" in text, "ibstat", host="node5")
        down = {name: text for name, text in sysfs(network, "node5").items() if "counters" not in name}
        said = "mlx5_0/1 is DOWN, physical state Polling; it was active"
        assert watcher.ask(write=down, look=["ib_port"]) == [["ib/mlx5_0/1", "fail", "down", said]]
        network.command('ReLink "node5"')
        network.until(lambda text: "State: Active" in text, "ibstat", host="node5")
        assert watcher.ask(write=sysfs(network, "node5"), look=["ib_port"]) == []
    finally:
        watcher.close()
    assert not Path("/sys/class/infiniband/mlx5_0/ports/1/counters/port_xmit_discards").exists()  # it was private
