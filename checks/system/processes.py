"""A process stuck in the kernel cannot be killed and holds its GPU; zombies say that a launcher lost its children."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable
from checks.processes import Process, processes

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
_STORAGE = ("nfs", "rpc_", "lustre", "ll_", "ptlrpc", "osc_", "ceph", "gpfs", "nvme", "fuse_", "__fuse")
_GPU = ("nv", "_nv", "uvm_", "os_acquire")
_TOLD = 5  # so many processes are named in a finding


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_seconds, fail_seconds: how long a process may wait in the kernel (D state) without running in between.

    120 s is the kernel's own hung task time-out (kernel.hung_task_timeout_secs); gcm takes 300 s, gpud 5 minutes; after
    10 minutes nothing that was healthy is still waiting.
    zombies: how many ended processes may wait for their parents for longer than zombie_seconds (gcm: 300 s). One or two
    are normal in containers without an init; 100 is a launcher that lost count. gpud allows 1,000.
    """

    interval: float = 60.0
    warn_seconds: Seconds = 120.0
    fail_seconds: Seconds = 600.0
    zombies: Count = 100
    zombie_seconds: Seconds = 300.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `processes/blocked` and one on `processes/zombies`."""
    boot, now = host.boot_id(), host.clock.monotonic()
    known = memory.get("seen", {}) if memory.get("boot") == boot else {}
    seen: dict[str, list[float]] = {}
    blocked: list[tuple[Process, float]] = []
    zombies: list[tuple[Process, float]] = []
    total = 0
    for process in processes(host):
        total += 1
        if process.state not in ("D", "Z"):
            continue
        key = f"{process.pid}.{process.started:g}.{process.state}"
        switches = _switches(host, process) if process.state == "D" else 0
        since, before = known.get(key, (now, switches))
        # It ran in between when its count of voluntary switches moved: a busy disk, not a stuck process.
        seen[key] = [since if before == switches else now, switches]
        (blocked if process.state == "D" else zombies).append((process, now - seen[key][0]))
    first = memory.get("boot") != boot
    memory["boot"], memory["seen"] = boot, seen
    if first and (blocked or zombies):
        yield _first_look(total, len(blocked), len(zombies))
        return
    yield _judge_blocked(host, [item for item in blocked if item[1] >= config.warn_seconds], config, total)
    yield _judge_zombies(host, [process for process, age in zombies if age >= config.zombie_seconds], config)


def _first_look(total: int, blocked: int, zombies: int) -> Finding:
    said = f"{total} processes, {blocked} wait in the kernel, {zombies} zombies; first look, for how long is not known"
    return Finding(component="processes", status=Status.OK, summary=said)


def _judge_blocked(host: Host, stuck: list[tuple[Process, float]], config: Config, total: int) -> Finding:
    values = {"processes_blocked": float(len(stuck))}
    if not stuck:
        summary = f"{total} processes, none waits in the kernel for {config.warn_seconds:.0f} s or longer"
        return Finding(component="processes/blocked", status=Status.OK, summary=summary, values=values)
    stuck.sort(key=lambda item: -item[1])
    places = [_place(host, process) for process, _ in stuck[:_TOLD]]
    who = [f"{p.name}[{p.pid}] for {age:.0f} s in {place}" for (p, age), place in zip(stuck, places, strict=False)]
    return Finding(
        component="processes/blocked",
        status=Status.FAIL if stuck[0][1] >= config.fail_seconds else Status.WARN,
        cause=_cause(places),
        kind="blocked",
        summary=f"{len(stuck)} stuck in the kernel (D state): {', '.join(who[:2])}",
        evidence="; ".join(who),
        advice=f"see where: `cat /proc/{stuck[0][0].pid}/stack`; it ends when what it waits for answers, or by reboot",
        values=values,
    )


def _judge_zombies(host: Host, zombies: list[Process], config: Config) -> Finding:
    values = {"processes_zombie": float(len(zombies))}
    if len(zombies) < config.zombies:
        summary = f"{len(zombies)} zombies older than {config.zombie_seconds:.0f} s"
        return Finding(component="processes/zombies", status=Status.OK, summary=summary, values=values)
    (parent, most), *_ = Counter(process.parent for process in zombies).most_common(1)
    return Finding(
        component="processes/zombies",
        status=Status.WARN,
        cause="host.resource_limit",
        kind="zombies",
        summary=f"{len(zombies)} zombies for over {config.zombie_seconds:.0f} s, {most} of {_name(host, parent)}",
        evidence=", ".join(f"{process.name}[{process.pid}]" for process in zombies[:_TOLD]),
        advice=f"restart the parent, process {parent}: it does not wait for its children",
        values=values,
    )


def _switches(host: Host, process: Process) -> int:
    try:
        text = host.read(host.proc / str(process.pid) / "status")
        return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    except (Unreadable, IndexError, ValueError):
        return 0


def _place(host: Host, process: Process) -> str:
    """The kernel function it waits in; `?` when the kernel does not tell."""
    try:
        place = host.read(host.proc / str(process.pid) / "wchan")
    except Unreadable:
        return "?"
    return place if place not in ("", "0") else "?"


def _cause(places: list[str]) -> str:
    """Whose code they wait in, by the prefix of the kernel function's name."""
    if any(place.startswith(_STORAGE) for place in places):
        return "storage.filesystem"
    return "gpu.driver" if any(place.startswith(_GPU) for place in places) else "host.kernel"


def _name(host: Host, pid: int) -> str:
    try:
        return f"{host.read(host.proc / str(pid) / 'comm')}[{pid}]"
    except Unreadable:
        return f"process {pid}"


CHECK = Check(
    name="processes",
    run=run,
    config=Config,
    metrics={
        "processes_blocked": "Processes that wait in the kernel for longer than the limit.",
        "processes_zombie": "Ended processes that their parents have not fetched for longer than the limit.",
    },
)
