"""A limit too low kills a large job at start: open files of 1,000 ranks, locked memory for RDMA, threads of loaders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable
from checks.processes import Process, processes

Percent = Annotated[float, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=0)]

# Whose limits a job inherits. PID 1's are only a fallback: hardly a job is its child.
_LAUNCHERS = ("slurmd", "containerd", "dockerd", "crio", "kubelet", "pbs_mom", "sge_execd", "sshd")


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_percent, fail_percent: share of a system-wide limit in use: 80 and 95, as gpud.

    least_open_files: NCCL and gloo open a handful of sockets per peer and loaders some hundred files per worker, so the
    common default of 1,024 ends runs of some hundred ranks; 65,536 is what Slurm and container hosts are set to.
    locked_memory: demand unlimited locked memory for jobs where there is an RDMA device: libibverbs registers every
    buffer, and 64 kB to 8 MB, the kernel's defaults, end in "ibv_reg_mr failed: Cannot allocate memory".
    launchers: daemons that start jobs, by process name; the ones that run here are looked at.
    """

    interval: float = 300.0
    warn_percent: Percent = 80.0
    fail_percent: Percent = 95.0
    least_open_files: Count = 65_536
    locked_memory: bool = True
    launchers: tuple[str, ...] = _LAUNCHERS


@dataclass(frozen=True, slots=True)
class _Use:
    what: str
    used: int
    most: int
    advice: str


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per system-wide limit on `limits/<what>`, and one per daemon that starts jobs."""
    for use in _system(host):
        yield _judge_use(use, config)
    found = False
    for process in processes(host):
        if process.name in config.launchers and process.parent == 1:
            found = True
            yield from _launcher(host, process, config)
    if not found:
        yield Finding(
            component="limits/jobs",
            status=Status.SKIPPED,
            summary="no daemon that starts jobs runs here (slurmd, containerd, kubelet, sshd, ...)",
        )


def _system(host: Host) -> Iterator[_Use]:
    allocated, _, most = host.read(host.proc / "sys/fs/file-nr").split()[:3]
    yield _Use(
        "open_files", int(allocated), int(most), "find who holds them: `lsof | awk '{print $1}' | sort | uniq -c`"
    )
    tasks = int(host.read(host.proc / "loadavg").split()[3].partition("/")[2])
    advice = "find who has them: `ps -eLo user,comm | sort | uniq -c | sort -n | tail`"
    yield _Use("pids", tasks, host.integer(host.proc / "sys/kernel/pid_max"), advice)
    yield _Use("threads", tasks, host.integer(host.proc / "sys/kernel/threads-max"), advice)


def _judge_use(use: _Use, config: Config) -> Finding:
    percent = 100.0 * use.used / use.most if use.most > 0 else 0.0
    component = f"limits/{use.what}"
    summary = f"{use.used} of {use.most} in use ({percent:.0f} %)"
    values = {"limit_used_ratio": round(percent / 100.0, 6)}
    if percent < config.warn_percent:
        return Finding(component=component, status=Status.OK, summary=summary, values=values)
    return Finding(
        component=component,
        status=Status.FAIL if percent >= config.fail_percent else Status.WARN,
        cause="host.resource_limit",
        kind="used_up",
        summary=f"{use.what.replace('_', ' ')}: {summary}",
        evidence=summary,
        advice=use.advice,
        values=values,
    )


def _launcher(host: Host, process: Process, config: Config) -> Iterator[Finding]:
    """What jobs that this daemon starts are allowed."""
    component = f"limits/jobs/{process.name}"
    limits = _limits(host, process)
    troubles = []
    files = limits["Max open files"][1]  # a job may raise its soft limit up to the hard one, and launchers do
    if files is not None and files < config.least_open_files:
        troubles.append(
            _low(component, "open_files", f"open files {files}, want {config.least_open_files}", "LimitNOFILE")
        )
    locked = limits["Max locked memory"][1]
    if config.locked_memory and locked is not None and host.devices("infiniband"):
        troubles.append(_low(component, "locked_memory", f"locked memory {locked} B, want unlimited", "LimitMEMLOCK"))
    if share := _cgroup_share(host, process):
        used, most = share
        if 100.0 * used / most >= config.warn_percent:
            troubles.append(_low(component, "tasks", f"{used} of {most} tasks of its cgroup in use", "TasksMax"))
    yield from troubles
    if not troubles:
        said = f"open files {'unlimited' if files is None else files}"
        said += f", locked memory {'unlimited' if locked is None else f'{locked} B'}"
        yield Finding(component=component, status=Status.OK, summary=said)


def _low(component: str, kind: str, said: str, setting: str) -> Finding:
    daemon = component.rsplit("/", 1)[-1]
    return Finding(
        component=component,
        status=Status.WARN,
        cause="host.resource_limit",
        kind=kind,
        summary=f"jobs started by {daemon} get {said}",
        evidence=said,
        advice=f"raise {setting} in its unit (`systemctl edit {daemon}`) and restart it",
    )


def _limits(host: Host, process: Process) -> dict[str, tuple[int | None, int | None]]:
    """Soft and hard limits by name; None is unlimited. Raises Unreadable."""
    path = host.proc / str(process.pid) / "limits"
    found = {}
    for line in host.read(path).splitlines():
        name, soft, hard = line[:25].strip(), line[26:46].strip(), line[47:67].strip()
        found[name] = (_number(soft), _number(hard))
    for name in ("Max open files", "Max locked memory"):
        if name not in found:
            raise Unreadable(f"{host.name(path)}: no {name!r}")
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _cgroup_share(host: Host, process: Process) -> tuple[int, int] | None:
    """Tasks in use and allowed in the daemon's cgroup, of either version; None where it sets no limit."""
    for path in _pids_cgroups(host, process):
        try:
            return host.integer(path / "pids.current"), host.integer(path / "pids.max")
        except Unreadable:
            continue  # no pids controller here, or "max"
    return None


def _pids_cgroups(host: Host, process: Process) -> Iterator[Path]:
    try:
        lines = host.read(host.proc / str(process.pid) / "cgroup").splitlines()
    except Unreadable:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield host.sys / "fs/cgroup" / path.lstrip("/")
        elif "pids" in controllers.split(","):
            yield host.sys / "fs/cgroup/pids" / path.lstrip("/")


CHECK = Check(
    name="limits",
    run=run,
    config=Config,
    metrics={"limit_used_ratio": "Share of a system-wide limit in use, 0 to 1."},
)
