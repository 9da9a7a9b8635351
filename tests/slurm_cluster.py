"""A real Slurm cluster on this machine: munged, slurmctld and some slurmd as root, on loopback, for one test module."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_CONF = """\
ClusterName=muster
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctl_port}
AuthType=auth/munge
AuthInfo=socket={top}/munge/sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
StateSaveLocation={top}/state
SlurmctldPidFile={top}/run/slurmctld.pid
SlurmctldLogFile={top}/log/slurmctld.log
SlurmdPidFile={top}/run/slurmd-%n.pid
SlurmdLogFile={top}/log/slurmd-%n.log
SlurmdSpoolDir={top}/spool/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
TopologyPlugin=topology/tree
ReturnToService=0
SlurmctldTimeout=10
SlurmdTimeout=6
InactiveLimit=0
KillWait=2
MessageTimeout=5
TCPTimeout=1
UnkillableStepTimeout=20
JobCompType=jobcomp/filetxt
JobCompLoc={top}/log/jobcomp.log
AccountingStorageType=accounting_storage/none
GresTypes=gpu
{extra}
NodeName=DEFAULT CPUs=8 RealMemory=4000 Gres=gpu:h100:8 State=UNKNOWN
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports}]
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=canary Nodes=ALL MaxTime=10 State=UP PriorityTier=1
"""
_TOPOLOGY = """\
SwitchName=leaf1 Nodes=n[1-{half}]
SwitchName=leaf2 Nodes=n[{rest}-{nodes}]
SwitchName=spine Switches=leaf[1-2]
"""


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        if first + count < 65000 and all(_is_free(first + index) for index in range(count)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class SlurmCluster:
    """munged, slurmctld and `nodes` slurmd in one directory; `environment` has the SLURM_CONF that clients need.

    It lives outside of pytest's directories: pytest makes those unreadable for munge whenever a session starts.
    """

    def __init__(self, nodes: int = 4, extra: str = "") -> None:
        self.top = top = Path(tempfile.mkdtemp(prefix="muster-slurm-"))
        top.chmod(0o755)
        self.nodes = [f"n{index + 1}" for index in range(nodes)]
        self.environment = {**os.environ, "SLURM_CONF": str(top / "etc/slurm.conf")}
        for name in ("etc", "state", "run", "log", "munge", "dev", *(f"spool/{node}" for node in self.nodes)):
            (top / name).mkdir(parents=True)
        self._configure(extra)
        self._munged()

    def start(self) -> None:
        """Start the daemons and wait until every node is idle."""
        self.call("slurmctld", "-f", self.environment["SLURM_CONF"])
        for node in self.nodes:
            self.start_node(node)
        self.wait_for(lambda: set(self.states().values()) == {"idle"}, "every node idle")

    def start_node(self, node: str) -> None:
        """Start one slurmd."""
        self.call("slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)

    def pid(self, node: str) -> int:
        """The slurmd of a node."""
        return int((self.top / f"run/slurmd-{node}.pid").read_text())

    def states(self) -> dict[str, str]:
        """Node -> sinfo's word for its state."""
        lines = self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines()
        return {name: state for name, state in (line.split() for line in lines)}  # noqa: C416

    def call(self, *command: str) -> str:
        """Run a Slurm program against this cluster; its output. Raises when it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def wait_for(self, true: Callable[[], bool], what: str, seconds: float = 40.0) -> None:
        """Until the callable answers true; fails with the controller's log otherwise."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if true():
                return
            time.sleep(0.1)
        log = (self.top / "log/slurmctld.log").read_text()[-3000:]
        raise AssertionError(f"{what}: not within {seconds:g} s\n{log}")

    def stop(self) -> None:
        """End what was started: jobs first, then the daemons, each by its own pid."""
        subprocess.run(["scancel", "-u", "root"], env=self.environment, capture_output=True, check=False, timeout=30)
        for name in [*(f"run/slurmd-{node}.pid" for node in self.nodes), "run/slurmctld.pid", "munge/pid"]:
            path = self.top / name
            if path.exists() and path.read_text().strip():
                subprocess.run(["kill", path.read_text().strip()], capture_output=True, check=False)
        shutil.rmtree(self.top, ignore_errors=True)

    def _configure(self, extra: str) -> None:
        count = len(self.nodes)
        first = free_ports(count + 1)
        for index in range(8):
            device = self.top / f"dev/nvidia{index}"
            subprocess.run(["mknod", str(device), "c", "195", str(index)], check=True)
        values: Mapping[str, object] = {
            "host": socket.gethostname().split(".")[0],
            "top": self.top,
            "ctl_port": first,
            "ports": f"{first + 1}-{first + count}",
            "nodes": count,
            "extra": extra,
        }
        (self.top / "etc/slurm.conf").write_text(_CONF.format(**values))
        (self.top / "etc/gres.conf").write_text(
            f"NodeName=n[1-{count}] Name=gpu Type=h100 File={self.top}/dev/nvidia[0-7]\n"
        )
        half = max(1, count // 2)
        (self.top / "etc/topology.conf").write_text(_TOPOLOGY.format(half=half, rest=half + 1, nodes=count))

    def _munged(self) -> None:
        munge = self.top / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        shutil.chown(munge, "munge", "munge")
        shutil.chown(munge / "key", "munge", "munge")
        as_munge = ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups"]
        command: Sequence[str] = [
            *as_munge, "munged", "--force", "--socket", str(munge / "sock"), "--key-file", str(munge / "key"),
            "--pid-file", str(munge / "pid"), "--log-file", str(munge / "log"), "--seed-file", str(munge / "seed"),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=20)
