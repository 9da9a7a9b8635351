"""Findings, outcomes and moments as the runner makes them, for tests of what remembers them."""

from collections.abc import Iterator
from typing import Any

import msgspec

from checks.base import Check, CheckConfig, ClearRule, Finding, Memory, Status
from checks.host import Host
from checks.runner import Outcome
from daemons.node.judge import Moment

NOW = 1_700_000_000.0


def _never(host: Host, config: Any, memory: Memory) -> Iterator[Finding]:
    yield from ()


def check(clear: ClearRule = ClearRule.CLEAN_RUNS, events: bool = False, name: str = "gpu_look") -> Check:
    return Check(name=name, run=_never, config=CheckConfig, clear=clear, events=events)


def finding(component: str = "gpu/3", status: Status = Status.FAIL, kind: str = "lost", **more: object) -> Finding:
    """A stamped finding; its fingerprint is readable."""
    found = Finding(
        component=component,
        status=status,
        summary=f"{kind} is {status}",
        kind=kind,
        node="n1",
        source="gpu_look",
        first_seen=NOW,
        last_seen=NOW,
        boot_id="boot1",
        fingerprint=f"{component}:{kind}",
    )
    return msgspec.structs.replace(found, **more)


def well(component: str = "gpu/3") -> Finding:
    return finding(component, Status.OK, "")


def unknown() -> Finding:
    return finding("check/gpu_look", Status.UNKNOWN, "unknown")


def outcome(of: Check, *found: Finding, looked: bool = True, at: float = NOW) -> Outcome:
    return Outcome(check=of, findings=found, seconds=0.01, at=at, looked=looked, memory={} if looked else None)


def moment(seconds: float = 0.0, boot: str = "boot1", uptime: float | None = None) -> Moment:
    """So many seconds into the story, which begins an hour after boot."""
    return Moment(monotonic=3600.0 + seconds, uptime=3600.0 + seconds if uptime is None else uptime, boot_id=boot)
