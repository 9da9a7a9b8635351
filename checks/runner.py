"""Runs one check: its deadline, its exceptions, its time, and the stamps on what it found, in one place for all."""

import hashlib
import importlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status, worst
from checks.host import Answers, CommandError, Host, Unreadable
from checks.prober import ProbeError, ProbeHung

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of one check. seconds: how long it took. looked: whether it ended without an exception.

    memory: what the check wants to remember; None when it did not end, so the memory before stays.
    """

    check: Check
    findings: tuple[Finding, ...]
    seconds: float
    at: float
    looked: bool
    memory: Memory | None = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The worst of its findings."""
        if self.findings and all(f.status is Status.SKIPPED for f in self.findings):
            return Status.SKIPPED
        return worst([finding.status for finding in self.findings])

    @property
    def seen_well(self) -> frozenset[str]:
        """Components that this run looked at and found well: only these can clear what is open on them.

        A component that is merely absent (a GPU that vanished) is not well.
        """
        well = {finding.component for finding in self.findings if finding.status is Status.OK}
        if self.looked:
            well |= {f"check/{self.check.name}", f"door/{self.check.door}"}
        return frozenset(well)


def run_check(check: Check, host: Host, config: CheckConfig, memory: Memory) -> Outcome:
    """Run a check once and stamp what it found; never raises for anything the check does."""
    started = time.perf_counter()
    found: list[Finding] = []
    after: Memory | None = None
    try:
        host.catch_up()
        for item in _findings(check, host, config, memory):
            if isinstance(item, Finding):
                found.append(item)
            else:
                after = item
        if not found:
            found.append(_unknown(check, f"{check.name} found nothing to look at"))
    except ProbeHung as error:
        found += [_unknown(check, str(error)), _hung_door(error)]
    except Exception as error:
        if not isinstance(error, ProbeError):
            log.debug("check %s raised", check.name, exc_info=True)
        found.append(_unknown(check, _reason(error)))
    return Outcome(
        check=check,
        findings=tuple(stamp(finding, check.name, host) for finding in found),
        seconds=time.perf_counter() - started,
        at=host.clock.now(),
        looked=after is not None,
        memory=after,
    )


def not_back(check: Check, host: Host, config: CheckConfig, seconds: float) -> Outcome:
    """What is known of a check whose run has not come back after so long: nothing."""
    reason = f"{check.name} has not come back for {seconds:.0f} s (deadline {config.deadline:g} s)"
    found = stamp(_unknown(check, reason), check.name, host)
    return Outcome(check=check, findings=(found,), seconds=seconds, at=host.clock.now(), looked=False, memory=None)


def _findings(check: Check, host: Host, config: CheckConfig, memory: Memory) -> Iterator[Finding | Memory]:
    """What the check yields, then its memory once it ended."""
    # A recorded node cannot hang, and what happens on it happens by its own clock, which a child does not have.
    if check.door is None or host.answers is not None:
        kept = msgspec.json.decode(msgspec.json.encode(memory))  # a run that fails half-way leaves no trace
        yield from check.run(host, config, kept)
        yield kept
        return
    seat = (str(host.root), host.answers, host.node)
    yield from host.prober.stream(
        check.door, "checks.runner:run_in_child", check.run.__module__, config, memory, seat, deadline=config.deadline
    )


def run_in_child(
    module: str, config: CheckConfig, memory: Memory, seat: tuple[str, Answers | None, str]
) -> Iterator[Finding]:
    """The same check, in a killable child; yields its findings and returns its memory."""
    root, answers, node = seat
    host = Host(root=Path(root), answers=answers, node=node)
    try:
        yield from _check_of(module).run(host, config, memory)
    finally:
        host.close()
    return memory  # type: ignore[return-value]  # a generator's return value, sent as the last message


def _check_of(module: str) -> Check:
    """The check of a module, without importing all the others as the registry does."""
    check = importlib.import_module(module).CHECK
    assert isinstance(check, Check)
    return check


def stamp(finding: Finding, source: str, host: Host) -> Finding:
    """The finding with its node, source, boot id, times and fingerprint."""
    now = host.clock.now()
    return msgspec.structs.replace(
        finding,
        node=host.node,
        source=source,
        boot_id=_boot_id(host),
        first_seen=finding.first_seen or now,
        last_seen=finding.last_seen or now,
        fingerprint=fingerprint(host.node, source, finding),
    )


def fingerprint(node: str, source: str, finding: Finding) -> str:
    """The same trouble of the same component has the same fingerprint, whatever numbers its summary carries."""
    what = finding.kind or finding.cause
    key = "\0".join((node, source, finding.component, what))
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _boot_id(host: Host) -> str:
    try:
        return host.boot_id()
    except Exception:  # noqa: BLE001 - a node without /proc still gets its findings told
        return ""


def _unknown(check: Check, reason: str) -> Finding:
    return Finding(
        component=f"check/{check.name}",
        status=Status.UNKNOWN,
        summary=reason,
        kind="unknown",
        advice=f"run `muster scan --check {check.name}` on the node and mend what it names",
    )


def _hung_door(error: ProbeHung) -> Finding:
    return Finding(
        component=f"door/{error.door}",
        status=Status.FAIL,
        cause="gpu.driver" if error.door.startswith("nvml") else "host.kernel",
        kind="hung",
        summary=f"{error.door} unresponsive for {error.seconds:.0f} s",
        evidence=str(error),
        advice=f"look at `cat /proc/{error.pid}/stack` and the kernel log; a reboot is what usually frees it",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ProbeError | Unreadable | CommandError):
        return str(error)
    return f"{type(error).__name__}: {error}"
