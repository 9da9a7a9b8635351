"""When people are told of one incident, told again, reminded, or told that it is over."""

import math

import msgspec

from checks.base import Status
from daemons.alerts.config import AlertsConfig
from daemons.incidents.model import Incident, Kind, State, Told

# An incident that has grown so much is another matter than the one that was told.
GROWTH = 10
# What was told of one node and is now of so many is no longer that node's matter.
MANY_NODES = 3
_RANK = {Status.FAIL: 0, Status.UNKNOWN: 1, Status.WARN: 2}
# What cannot wait for room: in a storm it is folded into the storm's messages instead.
LOUD = frozenset({Kind.OPENED, Kind.PASSED, Kind.WORSENED, Kind.REOPENED})
# While an incident comes and goes, these wait for its flap interval.
_FLAPPING = frozenset({Kind.WORSENED, Kind.REOPENED, Kind.RESOLVED, Kind.GREW})


def elapsed(now: float, then: float) -> float:
    """Seconds since `then`; infinite when the clock was set back behind it, so that nothing waits for it to return."""
    return now - then if now >= then else math.inf


def due(incident: Incident, now: float, config: AlertsConfig) -> Kind | None:
    """What people should be told of this incident now, if anything."""
    kind = _first(incident, config) if incident.told is None else _again(incident, incident.told, now, config)
    if kind in _FLAPPING and incident.flaps and incident.told is not None:
        return kind if elapsed(now, incident.told.at) >= config.flap_minutes * 60 else None
    return kind


def _first(incident: Incident, config: AlertsConfig) -> Kind | None:
    if incident.over:
        # A warning that was over before it could be told is nothing; a failure is.
        return Kind.PASSED if incident.severity is Status.FAIL else None
    if incident.severity is Status.WARN and config.warnings == "quiet":
        return None
    return Kind.OPENED


def _again(incident: Incident, told: Told, now: float, config: AlertsConfig) -> Kind | None:
    if incident.over or told.over:
        if incident.over == told.over:
            return None
        return Kind.RESOLVED if incident.over else Kind.REOPENED
    if _RANK[incident.severity] < _RANK[told.severity]:
        return Kind.WORSENED
    if incident.components >= GROWTH * told.components or (told.nodes == 1 and len(incident.nodes) >= MANY_NODES):
        return Kind.GREW
    reminded = incident.state is State.OPEN and incident.severity is not Status.WARN
    return Kind.REMINDER if reminded and elapsed(now, told.at) >= config.remind_hours * 3600 else None


def urgency(incident: Incident, kind: Kind) -> tuple[bool, int, int, float]:
    """Sorts what is to be told: what cannot wait, then the worst, then the largest, then the oldest."""
    return (kind not in LOUD, _RANK[incident.severity], -incident.components, incident.opened)


def told(incident: Incident, now: float) -> Incident:
    """The incident once people know how it stands. What they were told of it never eases while it goes on."""
    before = incident.told
    severity, components, nodes = incident.severity, incident.components, len(incident.nodes)
    if before is not None and not before.over and not incident.over:
        severity = min(severity, before.severity, key=_RANK.__getitem__)
        components = max(components, before.components)
        nodes = max(nodes, before.nodes)
    news = Told(at=now, severity=severity, components=components, over=incident.over, nodes=nodes)
    return msgspec.structs.replace(incident, told=news)


def spoken(incident: Incident, now: float) -> Incident:
    """The incident after a message of its own."""
    return msgspec.structs.replace(told(incident, now), tells=incident.tells + 1)


def forgettable(incident: Incident, now: float, config: AlertsConfig) -> bool:
    """Whether it is over, people know all there is to know, and it is too long ago to come back as the same."""
    settled = incident.over and due(incident, math.inf, config) is None
    window = max(config.reopen_minutes, config.flap_minutes) * 60
    return settled and elapsed(now, incident.resolved) > window
