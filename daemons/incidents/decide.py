"""The whole decision: changes in, the next situation and the messages out, never more than the budget allows."""

from collections.abc import Iterable

import msgspec

from daemons.alerts.config import AlertsConfig
from daemons.incidents.absorb import absorb
from daemons.incidents.correlation import ALONE, Correlation
from daemons.incidents.model import Change, Incident, Kind, Situation, State, Tell, UnknownIncident
from daemons.incidents.storm import fold, tell_storm
from daemons.incidents.telling import LOUD, due, elapsed, forgettable, spoken, told, urgency


def decide(
    situation: Situation,
    changes: Iterable[Change],
    now: float,
    config: AlertsConfig,
    correlation: Correlation = ALONE,
) -> tuple[Situation, list[Tell]]:
    """The situation after these changes and at this time, and what to tell of it.

    Call it with no changes now and then: reminders, the end of a flap interval and of a burst come with time.
    At most burst_messages single messages and storm.STORM_MESSAGES about a storm come out in any burst_seconds.
    """
    after = absorb(situation, changes, config.reopen_minutes * 60, correlation)
    after, tells = _tell(after, now, config)
    kept = {i.id: i for i in after.incidents.values() if not forgettable(i, now, config) or _in_storm(i, after)}
    return msgspec.structs.replace(after, incidents=kept), tells


def catch_up(
    situation: Situation,
    changes: Iterable[Change],
    now: float,
    config: AlertsConfig,
    correlation: Correlation = ALONE,
) -> Situation:
    """The situation after changes that were told before by a record that is lost.

    What is over is taken as told; what goes on is folded into one storm, which the next `decide` tells.
    """
    after = absorb(situation, changes, config.reopen_minutes * 60, correlation)
    incidents, storm = dict(after.incidents), after.storm
    for incident in after.incidents.values():
        if incident.over and incident.told is None:
            incidents[incident.id] = told(incident, now)
        elif due(incident, now, config) in LOUD:
            storm, incidents[incident.id] = fold(storm, incident, now)
    return msgspec.structs.replace(after, incidents=incidents, storm=storm)


def acknowledge(situation: Situation, incident: str, who: str, note: str, now: float) -> tuple[Situation, list[Tell]]:
    """Somebody looks after it: no more reminders; its thread says who. Raises UnknownIncident."""
    found = _find(situation, incident)
    if found.over or found.state is State.ACKNOWLEDGED:
        return situation, []
    found = msgspec.structs.replace(found, state=State.ACKNOWLEDGED, who=who, note=note, last_change=now)
    if found.told is None or found.storm:
        return _with(situation, found), []
    found = msgspec.structs.replace(found, tells=found.tells + 1)
    situation = msgspec.structs.replace(_with(situation, found), posts=(*situation.posts, now))
    return situation, [_about(found, Kind.ACKNOWLEDGED, now)]


def resolve(situation: Situation, incident: str, who: str, note: str, now: float) -> Situation:
    """Somebody says it is over: its findings count as cleared until they are seen again. Raises UnknownIncident.

    That it is over is told by the next `decide`.
    """
    found = _find(situation, incident)
    if found.over:
        return situation
    members = {key: msgspec.structs.replace(member, open=False) for key, member in found.members.items()}
    ended = f"resolved by {who or 'somebody'}" + (f": {note}" if note else "")
    found = msgspec.structs.replace(
        found,
        members=members,
        state=State.RESOLVED,
        resolved=now,
        last_change=now,
        who=who,
        note=note,
        ended=ended,
    )
    return _with(situation, found)


def _tell(situation: Situation, now: float, config: AlertsConfig) -> tuple[Situation, list[Tell]]:
    incidents = dict(situation.incidents)
    storm = situation.storm
    posts = _within(situation.posts, now, config.burst_seconds)
    storm_posts = _within(situation.storm_posts, now, config.burst_seconds)
    tells: list[Tell] = []
    waiting = [(i, kind) for i in incidents.values() if (kind := due(i, now, config)) is not None]
    for incident, kind in sorted(waiting, key=lambda item: urgency(*item)):
        if storm is not None and incident.storm == storm.id:
            if kind in LOUD:
                storm, incident = fold(storm, incident, now)
            incidents[incident.id] = told(incident, now)
        elif len(posts) < config.burst_messages:
            incidents[incident.id] = news = spoken(msgspec.structs.replace(incident, storm=""), now)
            tells.append(_about(news, kind, now))
            posts.append(now)
        elif kind in LOUD:
            storm, incidents[incident.id] = fold(storm, incident, now)
    if storm is not None:
        mine = [incident for incident in incidents.values() if incident.storm == storm.id]
        storm, tell = tell_storm(storm, mine, len(storm_posts), now, config)
        if tell is not None:
            tells.append(tell)
            storm_posts.append(now)
    after = Situation(
        incidents=incidents,
        storm=storm,
        posts=tuple(posts),
        storm_posts=tuple(storm_posts),
        early=situation.early,
    )
    return after, tells


def _within(posts: Iterable[float], now: float, seconds: float) -> list[float]:
    return [post for post in posts if elapsed(now, post) < seconds]


def _about(incident: Incident, kind: Kind, now: float) -> Tell:
    return Tell(subject=incident.id, number=incident.tells, kind=kind, at=now, incident=incident)


def _in_storm(incident: Incident, situation: Situation) -> bool:
    return situation.storm is not None and incident.storm == situation.storm.id


def _find(situation: Situation, incident: str) -> Incident:
    found = situation.incidents.get(incident)
    if found is None:
        raise UnknownIncident(f"no incident {incident!r} goes on here; `muster incidents list` shows which do")
    return found


def _with(situation: Situation, incident: Incident) -> Situation:
    return msgspec.structs.replace(situation, incidents={**situation.incidents, incident.id: incident})
