"""What people read: pure, every word of a message is decided here and cleaned of secrets before it leaves."""

import re
import time
import uuid

import msgspec

from checks.base import Finding, Status
from daemons.alerts.scrub import scrub
from daemons.alerts.story import story
from daemons.incidents import Digest, Incident, Kind, State, Tell
from daemons.incidents.grouping import JOB, what

# The same id for the same message in every life of the process: how a message is known again at Slack.
_NAMESPACE = uuid.UUID("6f1c5d0e-51a2-5b0e-9c55-0d3f0f3c7a11")
EVIDENCE_CHARS = 1500
EVIDENCE_LINES = 12
_LINE_CHARS = 600
# More than this of a finding's text is never read, so that a log pasted into it costs nothing.
_READ_CHARS = 65536
_NAMES = 6
_MARKS = {Status.FAIL: "✖", Status.WARN: "▲", Status.UNKNOWN: "?", Status.OK: "✔", Status.SKIPPED: "-"}
OVER_MARK = "✔"
_LEADS = {
    Kind.OPENED: "",
    Kind.WORSENED: "worse: ",
    Kind.GREW: "spreads: ",
    Kind.REOPENED: "back again: ",
    Kind.REMINDER: "still open: ",
    Kind.ACKNOWLEDGED: "",
    Kind.RESOLVED: "over: ",
    Kind.PASSED: "failed and over again: ",
}
# What a terminal would obey or a reader would be fooled by: control characters, ANSI colours, reversed text.
_UNPRINTABLE = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]"
)


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One message in parts, clean and cut to length, before any channel's own form.

    mark, severity: a sign and a word ("fail", "over"). since: epoch seconds, 0 for none. lines: more facts, one each.
    command: looks further.
    """

    id: str
    kind: Kind
    mark: str
    severity: str
    title: str
    summary: str = ""
    where: str = ""
    since: float = 0.0
    until: float = 0.0
    evidence: str = ""
    advice: str = ""
    lines: tuple[str, ...] = ()
    command: str = ""


def message_id(tell: Tell) -> str:
    """A UUID that is the same whenever and wherever this message is made again."""
    return str(uuid.uuid5(_NAMESPACE, f"{tell.subject}/{tell.number}"))


def clean(text: str, limit: int = _LINE_CHARS) -> str:
    """The text without secrets and control characters, at most `limit` characters long."""
    printable = _UNPRINTABLE.sub("", text[:_READ_CHARS].replace("\r\n", "\n"))
    return cut(scrub(printable).strip(), limit)


def cut(text: str, limit: int) -> str:
    """The text, or as much of it as fits with a sign that there was more."""
    return text if len(text) <= limit else text[: limit - 2].rstrip() + " …"


def line(text: str, limit: int = _LINE_CHARS) -> str:
    """As `clean`, on one line."""
    return " ".join(clean(text, limit).split())


def note(tell: Tell) -> Note:
    """What this message says."""
    if tell.incident is not None:
        return _incident_note(tell, tell.incident)
    assert tell.digest is not None, "a message is about an incident or a storm"
    return _storm_note(tell, tell.digest)


def _incident_note(tell: Tell, incident: Incident) -> Note:
    worst = incident.samples[0] if incident.samples else None
    severity = "over" if incident.over else str(incident.severity)
    return Note(
        id=message_id(tell),
        kind=tell.kind,
        mark=OVER_MARK if incident.over else _MARKS[incident.severity],
        severity=severity,
        title=_LEADS[tell.kind] + title(incident),
        summary=line(story(incident)) or (line(worst.summary) if worst else ""),
        where=where(incident),
        since=incident.opened,
        until=incident.resolved if incident.over else 0.0,
        evidence="" if incident.over else evidence(worst),
        advice="" if incident.over or worst is None else clean(worst.advice),
        lines=_facts(tell.kind, incident),
        command=f"muster incidents show {incident.id}",
    )


def title(incident: Incident) -> str:
    """The fault and where it is, in a few words: "gpu.lost on n12"."""
    fault = line(_fault(incident), 80)
    if incident.family.startswith(f"{JOB}/"):
        return f"{line(incident.family, 60)}: {fault}"
    nodes = incident.nodes
    place = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes"
    return f"{fault} on {line(place, 60)}" if place else fault


def _fault(incident: Incident) -> str:
    """The cause of the worst finding; the first one's, when it has been cleared of everything."""
    return incident.cause or (what(incident.samples[0]) if incident.samples else incident.key)


def where(incident: Incident) -> str:
    """Node and components: all of a few, the number of many."""
    shown = incident.shown()
    parts = [f"{m.node} {m.component}".strip() for m in shown]
    names = list(dict.fromkeys(parts))
    more = len(names) - _NAMES
    listed = ", ".join(line(name, 120) for name in names[:_NAMES])
    return listed + (f" and {more} more" if more > 0 else "")


def evidence(finding: Finding | None) -> str:
    """The lines that show it, the first dozen at most."""
    if finding is None or not finding.evidence.strip():
        return ""
    lines = clean(finding.evidence, _READ_CHARS).splitlines()
    more = len(lines) - EVIDENCE_LINES
    kept = [cut(each.rstrip(), _LINE_CHARS) for each in lines[:EVIDENCE_LINES]]
    if more > 0:
        kept.append(f"… {more} more lines")
    return cut("\n".join(kept), EVIDENCE_CHARS)


def _facts(kind: Kind, incident: Incident) -> tuple[str, ...]:
    facts = []
    if incident.components > 1:
        nodes = f" on {len(incident.nodes)} nodes" if len(incident.nodes) > 1 else ""
        facts.append(f"{incident.components} components{nodes}")
    if incident.count > len(incident.members):
        facts.append(f"seen {incident.count} times")
    if incident.flaps:
        facts.append(f"came back {incident.flaps} {'time' if incident.flaps == 1 else 'times'}")
    if incident.state is State.ACKNOWLEDGED or kind is Kind.ACKNOWLEDGED:
        told = f": {line(incident.note)}" if incident.note else ""
        facts.append(f"acknowledged by {line(incident.who, 80) or 'somebody'}{told}")
    if incident.over and incident.ended:
        facts.append(line(incident.ended))
    return tuple(facts)


def _storm_note(tell: Tell, digest: Digest) -> Note:
    over = digest.still_open == 0
    return Note(
        id=message_id(tell),
        kind=tell.kind,
        mark=OVER_MARK if over else _MARKS[Status.FAIL],
        severity="over" if over else "storm",
        title=_counted(digest.incidents, "incident") + (", all over" if over else f", {digest.still_open} still open"),
        summary=f"Told together, {_counted(digest.findings, 'finding')}. What they share:",
        lines=tuple(
            f"{name}: {_ranked(counts)}"
            for name, counts in (("cause", digest.by_cause), ("check", digest.by_check), ("node", digest.by_node))
            if counts
        ),
        command="muster incidents list",
    )


def _ranked(counts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{line(name, 80) or 'none'} ({count})" for name, count in counts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def lasted(seconds: float) -> str:
    """A length of time as people say it: "45 s", "12 min", "3 h 20 min", "4 d 2 h"."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def stamp(seconds: float) -> str:
    """A moment in UTC: "2023-11-14 22:13:20 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def text(told: Note) -> str:
    """The whole message in plain text: Slack's fallback and notification, the webhook's `text`, the terminal."""
    head = f"{told.mark} {told.severity.upper()} {told.title}"
    parts = [f"{head}: {told.summary}" if told.summary else head]
    if told.where:
        parts.append(f"where: {told.where}")
    if told.since:
        until = f", lasted {lasted(told.until - told.since)}" if told.until else ""
        parts.append(f"since: {stamp(told.since)}{until}")
    parts += told.lines
    if told.evidence:
        parts.append(told.evidence)
    if told.advice:
        parts.append(f"what to do: {told.advice}")
    if told.command:
        parts.append(f"look further: {told.command}")
    return "\n".join(parts)
