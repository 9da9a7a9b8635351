"""A file system is filling: who must be called, and how long is left? Looks only where it is getting full."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable
from checks.mountinfo import Mount, disks
from checks.owners import Walk
from checks.prober import ProbeError
from checks.storage.space import bytes_text, hours_to_full, remember


class Config(CheckConfig, frozen=True, kw_only=True):
    """above_percent: how full a file system must be before its files are walked: 80 %, before `space` warns.

    warn_percent, enough_bytes, warn_hours_to_full: when naming the owners is a warning and no longer only information;
    as those of `space`, so that the two agree.

    seconds: how long a walk may take; it sums up the upper levels first and says when it did not see all. A local disk
    gives some 200,000 files in that time. exclude: mount points left out. network: walk network file systems too: off,
    because a walk by every node at once is what brings a filer down.
    """

    interval: float = 900.0
    deadline: float = 60.0
    above_percent: Annotated[float, Meta(ge=0, le=100)] = 80.0
    warn_percent: Annotated[float, Meta(ge=0, le=100)] = 85.0
    enough_bytes: Annotated[int, Meta(ge=0)] = 200_000_000_000
    warn_hours_to_full: Annotated[float, Meta(ge=0)] = 4.0
    seconds: Annotated[float, Meta(gt=0, le=60)] = 5.0
    exclude: tuple[str, ...] = ()
    network: bool = False


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per local file system that can be written, on `mount/<its mount point>`."""
    end = host.clock.monotonic() + config.deadline
    walks, samples, looked = {}, {}, False
    for mount in disks(host):
        if mount.point in config.exclude or mount.read_only or (mount.network and not config.network):
            continue
        looked = True
        try:
            size = host.size(mount.point, 3.0)
            samples[mount.point] = remember(memory, host, mount.point, size.available)
            used = 100.0 * (1.0 - size.available / size.total) if size.total > 0 else 0.0
            if used < config.above_percent:
                yield Finding(component=mount.component, status=Status.OK, summary=f"{used:.0f} % used, not walked")
                continue
            deadline = min(config.seconds + 5.0, end - host.clock.monotonic())
            if deadline <= 0:
                raise Unreadable("not walked: others used up the time of this check")
            walk = host.walk(mount.point, config.seconds, deadline)
        except (ProbeError, Unreadable) as error:
            yield _silent(mount, str(error))
            continue
        before = memory.get("walks", {}).get(mount.point, {})
        hours = hours_to_full(samples[mount.point])
        filling = hours is not None and hours < config.warn_hours_to_full
        pressing = filling or (used >= config.warn_percent and size.available < config.enough_bytes)
        yield _say(mount, used, walk, before, hours, pressing)
        walks[mount.point] = walk.owners if walk.whole else {}
    memory["walks"], memory["samples"] = walks, samples
    if not looked:
        yield Finding(component="mount", status=Status.SKIPPED, summary="no local file system to walk here")


def _say(mount: Mount, used: float, walk: Walk, before: dict[str, int], hours: float | None, pressing: bool) -> Finding:
    total = sum(walk.owners.values())
    owners = [f"{name} {bytes_text(size)}" for name, size in list(walk.owners.items())[:3]]
    places = [f"{name} {bytes_text(size)}" for name, size in list(walk.directories.items())[:3]]
    grown = {name: size - before[name] for name, size in walk.owners.items() if name in before and size > before[name]}
    grower = max(grown, key=grown.__getitem__, default="")
    said = f"{mount.point} is {used:.0f} % full: {', '.join(owners) or 'nothing could be counted'}"
    if grower:
        said += f"; {grower} grew by {bytes_text(grown[grower])} since the last walk"
    if hours is not None:
        said += f"; full in {hours:.1f} h at this pace"
    if not walk.whole:
        said += f" (of {bytes_text(total)} that the walk had time for)"
    values = {"filesystem_walked_bytes": float(total)}
    if not pressing:
        return Finding(component=mount.component, status=Status.OK, summary=said, values=values)
    return Finding(
        component=mount.component,
        status=Status.WARN,
        cause="storage.disk_full",
        kind="filler",
        summary=said,
        evidence=", ".join(places),
        advice=f"ask {grower or next(iter(walk.owners), 'its users')} to clean up: {', '.join(places[:2])}",
        values=values,
    )


def _silent(mount: Mount, reason: str) -> Finding:
    return Finding(
        component=mount.component,
        status=Status.UNKNOWN,
        cause="storage.filesystem",
        kind="no_answer",
        summary=f"{mount.point}: not walked: {reason}",
        advice="see what the check `mounts` says of it",
    )


CHECK = Check(
    name="disk_filler",
    run=run,
    config=Config,
    metrics={"filesystem_walked_bytes": "What the last walk for owners counted."},
)
