"""A shared file system that is missing, read-only or hung stops every job on the node, or fills the disk below it."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable
from checks.mountinfo import Mount, disks, fstab, mounts
from checks.prober import ProbeError, ProbeHung

# How the mount table says that the kernel stopped writing after an error: these since Linux 6.12; before, and still on
# btrfs, the super block turns read-only while the mount point itself says rw.
_EMERGENCY = frozenset(("emergency_ro", "shutdown"))
_SERVER = "see whether the server of {source} answers from other nodes; remount it once it does"


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: mount points that must be there, besides those of /etc/fstab. exclude: mount points left out.

    use_fstab: entries of /etc/fstab without `noauto` are expected; one with `nofail` that is missing only warns.
    ask_seconds: how long a file system may take to answer statfs(2). A healthy server answers within milliseconds and
    a busy one within a second; our judgement.
    """

    interval: float = 30.0
    deadline: float = 20.0
    consecutive: int = 2
    boot_grace: float = 120.0
    expected: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    use_fstab: bool = True
    ask_seconds: Annotated[float, Meta(gt=0)] = 5.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per file system that holds data or should, on `mount/<its mount point>`."""
    there = {mount.point: mount for mount in mounts(host)}
    wanted = _wanted(host, config)
    yield from _missing(wanted, config, there)
    looked = {mount.point: mount for mount in disks(host)}
    looked |= {point: there[point] for point in wanted if point in there}
    tabled = {entry.point for entry in fstab(host) if "ro" not in entry.options}
    boot = host.boot_id()
    # After a boot it is mounted as the site wants it: what an earlier boot had says nothing.
    writable = set(memory.get("writable", [])) if memory.get("boot") == boot else set()
    end = host.clock.monotonic() + config.deadline
    for point, mount in sorted(looked.items()):
        if point in config.exclude:
            continue
        deadline = min(config.ask_seconds, end - host.clock.monotonic())
        yield _no_answer(host, mount, deadline) or _judge(mount, point in tabled | writable)
        if not mount.read_only:
            writable.add(point)
    memory["boot"], memory["writable"] = boot, sorted(writable & set(there))


def _judge(mount: Mount, was_writable: bool) -> Finding:
    """How a mount that answers is. was_writable: fstab says so, or it was at an earlier look."""
    if mount.super_options & _EMERGENCY or (mount.read_only and "rw" in mount.options):
        advice = f"find its error: `dmesg | grep -i {mount.source.rsplit('/', 1)[-1]}`; it needs a file system check"
        return _trouble(mount, "read_only", "read-only: the kernel stopped writing to it after an error", advice)
    if mount.read_only and was_writable:
        return _trouble(mount, "read_only", "read-only, and it was writable", "see `dmesg`, then remount it writable")
    how = "read-only" if mount.read_only else "writable"
    return Finding(component=mount.component, status=Status.OK, summary=f"{mount.kind}, {how}, answers")


def _no_answer(host: Host, mount: Mount, deadline: float) -> Finding | None:
    """A finding when the file system gives no answer."""
    if deadline <= 0:
        said = f"{mount.point}: not asked: others used up the time of this check"
        return Finding(component=mount.component, status=Status.UNKNOWN, kind="not_asked", summary=said)
    try:
        host.size(mount.point, deadline)
    except ProbeHung as error:
        return _trouble(mount, "hung", f"hangs: {error}", _SERVER.format(source=mount.source))
    except (ProbeError, Unreadable) as error:
        return _trouble(mount, "no_answer", f"does not answer: {error}", _SERVER.format(source=mount.source))
    return None


def _missing(wanted: dict[str, bool], config: Config, there: dict[str, Mount]) -> Iterator[Finding]:
    for point, nofail in wanted.items():
        if point in there:
            continue
        yield Finding(
            component=f"mount{point}",
            status=Status.WARN if nofail else Status.FAIL,
            cause="storage.filesystem",
            kind="missing",
            summary=f"{point}: not mounted",
            evidence="checks.mounts.expected" if point in config.expected else "/etc/fstab",
            advice=f"mount it: `mount {point}`; what is written to {point} meanwhile lands on the disk below it",
        )


def _wanted(host: Host, config: Config) -> dict[str, bool]:
    """Mount points that must be there -> whether their absence is tolerable."""
    tabled = {entry.point: "nofail" in entry.options for entry in fstab(host)} if config.use_fstab else {}
    wanted = tabled | dict.fromkeys(config.expected, False)
    return {point: nofail for point, nofail in wanted.items() if point not in config.exclude}


def _trouble(mount: Mount, kind: str, said: str, advice: str) -> Finding:
    return Finding(
        component=mount.component,
        status=Status.FAIL,
        cause="storage.filesystem",
        kind=kind,
        summary=f"{mount.point}: {said}",
        evidence=f"{mount.source} on {mount.point} type {mount.kind} ({','.join(sorted(mount.super_options))})",
        advice=advice,
    )


CHECK = Check(name="mounts", run=run, config=Config)
