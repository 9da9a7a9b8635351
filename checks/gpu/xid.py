"""An XID is the driver's own report of a fault: it names the GPU, and often says what to do, before anything else does.

Read from the kernel log, which NVML need not answer for; what a code means is data (xid.toml), what codes mean
together are rules (xid_rules.py).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, ClearRule, Finding, Memory, Status
from checks.gpu.kernel_lines import new_lines
from checks.gpu.xid_policy import Override
from checks.gpu.xid_rules import Verdict, XidEvent, judge, parse
from checks.host import Host

# Failures are remembered over reboots for so long, so that one that comes back is known.
_REMEMBERED_SECONDS = 14 * 86400.0
_DAY_SECONDS = 86400.0
# A GPU that floods the log keeps its first and its latest lines; the rest is counted only.
_LINES_PER_CODE = 20


Code = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*$")]


class Config(CheckConfig, frozen=True, kw_only=True):
    """override: [checks.xid.override.NN] with status, cause, clear or advice for one code.

    An XID line is read within a second of being written. What ends a finding stands in xid.toml per code: an hour of
    quiet (quiet_seconds), a reboot, or a person's word. A GPU reset without reboot leaves no trace that can be trusted:
    resolve the incident after it.
    """

    interval: float = 1.0
    override: dict[Code, Override] = msgspec.field(default_factory=dict)


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """A finding per code and GPU that has new lines, and `ok` for every other GPU that ever logged one."""
    boot = host.boot_id()
    events = msgspec.convert(memory.get("events", []), list[XidEvent])
    fresh: list[XidEvent] = []
    lost = 0
    for line in new_lines(host, memory, boot):
        lost += line.lost
        if (event := parse(line.text)) is not None:
            fresh.append(msgspec.structs.replace(event, at=line.at, boot=boot))
    events = _kept([*events, *fresh], boot, host.clock.now())
    memory["events"] = msgspec.to_builtins(events)
    counts: dict[str, int] = defaultdict(int, memory.get("counts", {}))
    for event in fresh:
        counts[event.pci] += 1
    memory["counts"] = dict(counts)
    yield _log(fresh, lost)
    overrides = {int(code): override for code, override in config.override.items()}
    for pci in counts:
        yield from _gpu(host, pci, events, fresh, boot, overrides, counts[pci])


def _gpu(
    host: Host,
    pci: str,
    events: list[XidEvent],
    fresh: list[XidEvent],
    boot: str,
    overrides: Mapping[int, Override],
    count: int,
) -> Iterator[Finding]:
    component = f"gpu/{host.nvml.number(pci)}"
    new = [event for event in fresh if event.pci == pci]
    mine = [event for event in events if event.pci == pci]
    verdicts = judge(mine, boot, overrides, [event for event in events if event.pci != pci]) if new else []
    told = [verdict for verdict in verdicts if any(line in new for line in verdict.lines)]
    troubles = [verdict for verdict in told if verdict.status is not Status.OK]
    values = {"xids_total": float(count)}
    for verdict in troubles:
        yield _finding(component, verdict, values)
    if not troubles:
        noted = "; ".join(verdict.summary for verdict in told)
        yield Finding(component=component, status=Status.OK, summary=noted or "no new XID", values=values)


def _finding(component: str, verdict: Verdict, values: dict[str, float]) -> Finding:
    shown = dict.fromkeys(line.text for line in verdict.lines)
    return Finding(
        component=component,
        status=verdict.status,
        cause=verdict.cause,
        kind=f"xid{verdict.code}",
        summary=verdict.summary,
        evidence="\n".join(list(shown)[-3:]),
        advice=verdict.advice,
        clear=verdict.clear,
        first_seen=verdict.lines[0].at,
        last_seen=verdict.lines[-1].at,
        values=values,
    )


def _log(fresh: list[XidEvent], lost: int) -> Finding:
    """On the log itself; lines that were overwritten unread are the kernel_log check's to tell of."""
    if lost:
        summary = f"{lost} lines were overwritten before they were read: see kernel_log"
        return Finding(component="kernel_log", status=Status.SKIPPED, summary=summary)
    return Finding(component="kernel_log", status=Status.OK, summary=f"read; {len(fresh)} new XID lines")


def _kept(events: list[XidEvent], boot: str, now: float) -> list[XidEvent]:
    """The lines worth remembering: a day of everything, two weeks of what a reboot should have cured."""
    kept: list[XidEvent] = []
    per_code: dict[tuple[str, int, str], int] = defaultdict(int)
    for event in reversed(events):
        key = (event.pci, event.code, event.boot)
        age = now - event.at
        per_code[key] += 1
        newest = _LINES_PER_CODE if event.boot == boot and age <= _DAY_SECONDS else 1
        if age <= _REMEMBERED_SECONDS and per_code[key] <= newest:
            kept.append(event)
    return kept[::-1]


CHECK = Check(
    name="xid",
    run=run,
    config=Config,
    clear=ClearRule.QUIET,
    events=True,
    metrics={"xids_total": "XID lines of this GPU in the kernel log since the agent first read it."},
)
