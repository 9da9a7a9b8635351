"""Incidents as tables and pages for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from checks.base import Status
from daemons.alerts.message import lasted, stamp
from daemons.cli.tables import STYLE


def incident_table(incidents: Sequence[Mapping[str, Any]], now: float) -> Table:
    """One line an incident: id, severity, state, since when, what, where, whether people were told."""
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "severity", "state", "since", "what", "where", "told"):
        table.add_column(heading, overflow="fold")
    for each in incidents:
        table.add_row(
            str(each["id"]),
            _severity(each),
            str(each["state"]),
            f"{lasted(now - each['opened'])} ago",
            Text(str(each["title"])),
            Text(str(each["where"])),
            told(each["messages"]),
        )
    return table


def told(messages: Sequence[Mapping[str, Any]]) -> str:
    """How far its messages have come, in a word: the worst counts."""
    states = {message["state"] for message in messages}
    if not states:
        return "no"
    if "unaddressed" in states:
        return "nowhere to send to"
    if states & {"waiting", "sending", "unsure", "parked"}:
        return "waiting"
    return "yes" if "sent" in states else "no"


def incident_page(incident: Mapping[str, Any], now: float) -> RenderableType:
    """All there is to know of one."""
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in _facts(incident, now):
        facts.add_row(name, Text(value))
    parts: list[RenderableType] = [Text.assemble(_severity(incident), "  ", (str(incident["title"]), "bold")), facts]
    if incident["evidence"]:
        parts.append(Padding(Text(str(incident["evidence"])), (1, 0, 1, 2)))
    if incident["messages"]:
        parts.append(_messages(incident["messages"]))
    return Group(*parts)


def _facts(incident: Mapping[str, Any], now: float) -> list[tuple[str, str]]:
    end = incident["resolved"] or now
    facts = [
        ("incident", str(incident["id"])),
        ("what", str(incident["summary"])),
        ("where", str(incident["where"])),
        ("since", f"{stamp(incident['opened'])}, {lasted(end - incident['opened'])}"),
        ("state", " ".join(filter(None, (incident["state"], f"by {incident['who']}" if incident["who"] else "")))),
        ("note", str(incident["note"])),
        ("ended", str(incident["ended"])),
        ("seen", f"{incident['count']} times" if incident["count"] > 1 else ""),
        ("came back", f"{incident['flaps']} times" if incident["flaps"] else ""),
        ("what to do", str(incident["advice"])),
    ]
    return [(name, value) for name, value in facts if value]


def _messages(messages: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("told", "to", "message", "state"):
        table.add_column(heading, overflow="fold")
    for message in messages:
        state = str(message["state"]) + (f": {message['trouble']}" if message["trouble"] else "")
        what = f"{message['title']}" + (" (first message changed)" if message["method"] == "update" else "")
        table.add_row(stamp(message["sent_at"] or message["at"]), str(message["channel"]), Text(what), Text(state))
    return table


def _severity(incident: Mapping[str, Any]) -> Text:
    over = incident["state"] == "resolved"
    word = str(incident["severity"])
    return Text(word, style="dim" if over else STYLE[Status(word)])
