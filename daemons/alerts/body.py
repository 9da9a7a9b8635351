"""The JSON webhook's body: one object a message, a schema that only grows (docs/alerts.md)."""

from typing import Any

from daemons.alerts.message import Note, line, message_id, note, text
from daemons.incidents import Digest, Incident, Tell

VERSION = 1
# So many components are named; `components` counts them all.
_LISTED = 100


def body(tell: Tell, told: Note | None = None) -> dict[str, Any]:
    """What the webhook gets. `id` is the same when the same message has to be sent again: a receiver may drop it."""
    told = told or note(tell)
    return {
        "version": VERSION,
        "id": message_id(tell),
        "subject": tell.subject,
        "number": tell.number,
        "kind": str(tell.kind),
        "at": tell.at,
        "severity": told.severity,
        "title": told.title,
        "text": text(told),
        "incident": _incident(tell.incident, told) if tell.incident else None,
        "storm": _storm(tell.digest) if tell.digest else None,
    }


def _incident(incident: Incident, told: Note) -> dict[str, Any]:
    return {
        "id": incident.id,
        "cause": line(incident.cause),
        "severity": str(incident.severity),
        "state": str(incident.state),
        "summary": told.summary,
        "evidence": told.evidence,
        "advice": told.advice,
        "opened": incident.opened,
        "resolved": incident.resolved or None,
        "nodes": [line(name) for name in incident.nodes[:_LISTED]],
        "affected": [
            {"node": line(m.node), "component": line(m.component), "check": line(m.source), "status": str(m.status)}
            for m in incident.shown()[:_LISTED]
        ],
        "components": incident.components,
        "count": incident.count,
        "flaps": incident.flaps,
        "who": line(incident.who),
        "note": line(incident.note),
    }


def _storm(digest: Digest) -> dict[str, Any]:
    return {
        "incidents": digest.incidents,
        "still_open": digest.still_open,
        "findings": digest.findings,
        "by_cause": _pairs(digest.by_cause),
        "by_check": _pairs(digest.by_check),
        "by_node": _pairs(digest.by_node),
    }


def _pairs(counts: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
    return [{"name": line(name), "findings": count} for name, count in counts]
