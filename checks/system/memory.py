"""A node short of memory swaps, stalls its data loaders and then loses a rank to the OOM killer."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable

_KIB = 1024
Percent = Annotated[float, Meta(ge=0, le=100)]


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_percent, fail_percent: share of memory still available (MemAvailable) below which it is said.

    The kernel's own estimate of what can be had without swapping; below 2 % a 1 TB node has 20 GB left, less than one
    large pinned checkpoint buffer. Our judgement, no peer sets a share (gpud logs below 100 MiB).
    """

    interval: float = 15.0
    consecutive: int = 2
    warn_percent: Percent = 5.0
    fail_percent: Percent = 2.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `memory`."""
    sizes = _meminfo(host)
    percent = 100.0 * sizes["MemAvailable"] / sizes["MemTotal"]
    values = {"memory_available_bytes": float(sizes["MemAvailable"]), "memory_size_bytes": float(sizes["MemTotal"])}
    summary = f"{percent:.0f} % available of {sizes['MemTotal'] / 1e9:.0f} GB"
    if percent >= config.warn_percent:
        yield Finding(component="memory", status=Status.OK, summary=summary, values=values)
        return
    yield Finding(
        component="memory",
        status=Status.FAIL if percent < config.fail_percent else Status.WARN,
        cause="host.out_of_memory",
        kind="low",
        summary=summary,
        evidence=f"MemAvailable: {sizes['MemAvailable'] // _KIB} kB",
        advice="see who holds it: `ps -eo rss,user,args --sort=-rss | head`",
        values=values,
    )


def _meminfo(host: Host) -> dict[str, int]:
    """Sizes of /proc/meminfo in bytes. Raises Unreadable when one that is needed is missing."""
    path = host.proc / "meminfo"
    sizes = {}
    for line in host.read(path).splitlines():
        name, _, value = line.partition(":")
        number = value.split()[0] if value.split() else ""
        if number.isdigit():
            sizes[name] = int(number) * _KIB
    for name in ("MemTotal", "MemAvailable"):
        if not sizes.get(name) and not (name == "MemAvailable" and name in sizes):
            raise Unreadable(f"{host.name(path)}: no {name}")
    return sizes


CHECK = Check(
    name="memory",
    run=run,
    config=Config,
    metrics={
        "memory_available_bytes": "Memory that can be had without swapping.",
        "memory_size_bytes": "Memory that the kernel manages.",
    },
)
