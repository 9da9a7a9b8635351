"""Memory of a GPU that nobody can free fails the next job with "out of memory" before its first step."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host, Unreadable

_GIB = 2**30


class Config(CheckConfig, frozen=True, kw_only=True):
    """orphan_gib: memory in use on a GPU with no process, above which it counts as held by nobody.

    The driver itself reserves some of a data centre GPU's memory, so 4 GiB are somebody's: our judgement, not measured
    on hardware. Three runs in a row: a process that ends frees its memory within seconds.
    """

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 3
    orphan_gib: Annotated[float, msgspec.Meta(gt=0)] = 4.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        processes: list[list[int | None]] = gpu.value("processes")
        total, used = gpu.integers("memory")
        who = [_who(host, pid or 0) for pid, _ in processes]
        values = {"gpu_processes": float(len(who)), "gpu_memory_used_bytes": float(used)}
        values["gpu_memory_size_bytes"] = float(total)
        dead = [name for name, state in who if state in ("Z", "X", "")]
        if dead:
            yield _held(gpu, "zombie", f"held by {len(dead)} processes that have ended", ", ".join(dead), values)
        elif not who and used > config.orphan_gib * _GIB and not _mig(gpu):
            yield _held(gpu, "orphan", f"{used / _GIB:.1f} GiB in use and no process", "", values)
        else:
            names = ", ".join(name for name, _ in who) or "nobody"
            summary = f"{used / _GIB:.1f} of {total / _GIB:.0f} GiB used by {names}"
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)

    yield from each_gpu(host.nvml, judge)


def _who(host: Host, pid: int) -> tuple[str, str]:
    """("python (pid 5, user 1000)", state letter); an empty state when the process is not there."""
    try:
        stat = host.read(host.proc / str(pid) / "stat")
    except Unreadable:
        return f"pid {pid}", ""
    name, state = stat.partition("(")[2].rpartition(")")[0], stat.rpartition(")")[2].split()[0]
    user = _user(host, pid)
    return f"{name} (pid {pid}{f', uid {user}' if user else ''})", state


def _user(host: Host, pid: int) -> str:
    try:
        lines = host.read(host.proc / str(pid) / "status").splitlines()
    except Unreadable:
        return ""
    return next((line.split()[1] for line in lines if line.startswith("Uid:") and len(line.split()) > 1), "")


def _mig(gpu: Gpu) -> bool:
    mode = gpu.ask("mig_mode")
    return isinstance(mode, list) and bool(mode[0])


def _held(gpu: Gpu, kind: str, summary: str, evidence: str, values: dict[str, float]) -> Finding:
    return Finding(
        component=gpu.component,
        status=Status.WARN,
        cause="gpu.driver",
        kind=kind,
        summary=summary,
        evidence=evidence or f"{gpu.model} at {gpu.pci}",
        advice="end what is left of the job (`fuser -v /dev/nvidia*`); if nothing is, drain the node and reset the GPU",
        values=values,
    )


CHECK = Check(
    name="gpu_processes",
    run=run,
    config=Config,
    metrics={
        "gpu_processes": "Compute processes on this GPU.",
        "gpu_memory_used_bytes": "Memory of this GPU that is in use.",
        "gpu_memory_size_bytes": "Memory that this GPU has.",
    },
)
