"""The record of incidents as people and programs see it: in a running agent, and in the file when none runs."""

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from daemons.alerts import tables
from daemons.alerts.channels import SLACK
from daemons.alerts.message import evidence, line, title, where
from daemons.alerts.posts import Post
from daemons.alerts.story import story
from daemons.errors import StateError
from daemons.incidents import Incident, Situation
from daemons.incidents.model import Member

# So many incidents that are over are shown, the latest; the file keeps them for alerts.keep_days.
_PAST = 200
_COMPONENTS = 100


def described(
    situation: Situation, waiting: Iterable[Post], connection: sqlite3.Connection | None
) -> list[dict[str, Any]]:
    """Every incident, the newest first, with what was said of it and what still waits to be."""
    posts: dict[str, dict[int, Post]] = defaultdict(dict)
    past: list[Incident] = []
    if connection is not None:
        try:
            past = list(tables.incidents(connection, "live = 0 ORDER BY changed DESC LIMIT ?", _PAST))
            for post in tables.posts(connection, "1 ORDER BY id"):
                posts[post.subject][post.id] = post
        except sqlite3.DatabaseError:
            past = []  # the desk says in its state that the record cannot be read
    for post in waiting:
        posts[post.subject][post.id] = post
    everything = [*situation.incidents.values(), *past]
    everything.sort(key=lambda incident: (incident.over, -incident.opened, incident.id))
    return [
        _described(incident, [*posts[incident.id].values(), *posts[incident.storm].values()]) for incident in everything
    ]


def read_only(path: Path) -> list[dict[str, Any]]:
    """The incidents of a desk's file, while no agent has it or while one does. Raises StateError."""
    with opened(path) as connection:
        saved = tables.read(connection)
        return described(saved.situation, saved.posts, connection)


def slack_messages(path: Path, subject: str) -> list[tuple[str, dict[str, Any]]]:
    """State and content of every message to Slack about a subject, or whose id begins so. Raises StateError."""
    begin = subject.replace("%", "").replace("_", "")
    with opened(path) as connection:
        found = tables.posts(
            connection, "channel = ? AND method = 'post' AND subject LIKE ? ORDER BY id", SLACK, f"{begin}%"
        )
    return [(str(post.state), json.loads(post.body)) for post in found]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, to read. Raises StateError when there is none, or it cannot be read or understood."""
    if not path.exists():
        raise StateError(f"{path}: no record of incidents here: start an agent, or set node.state")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
        raise StateError(f"{path}: cannot be read: {error}") from error


def _described(incident: Incident, posts: list[Post]) -> dict[str, Any]:
    worst = incident.samples[0] if incident.samples else None
    return {
        "id": incident.id,
        "title": title(incident),
        "cause": incident.cause,
        "severity": str(incident.severity),
        "state": str(incident.state),
        "opened": incident.opened,
        "last_change": incident.last_change,
        "resolved": incident.resolved or None,
        "nodes": list(incident.nodes),
        "where": where(incident),
        "components": incident.components,
        "count": incident.count,
        "flaps": incident.flaps,
        "summary": line(story(incident)) or (line(worst.summary) if worst else ""),
        "evidence": evidence(worst),
        "advice": line(worst.advice) if worst else "",
        "who": incident.who,
        "note": incident.note,
        "ended": incident.ended,
        "storm": incident.storm,
        "members": [_member(member) for member in incident.shown()[:_COMPONENTS]],
        "messages": [_message(post) for post in posts],
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "node": member.node,
        "component": member.component,
        "check": member.source,
        "cause": member.cause,
        "status": str(member.status),
        "open": member.open,
        "count": member.count,
    }


def _message(post: Post) -> dict[str, Any]:
    return {
        "channel": post.channel,
        "method": post.method,
        "kind": post.kind,
        "title": post.title,
        "state": str(post.state),
        "at": post.at,
        "sent_at": post.sent_at or None,
        "attempts": post.attempts,
        "trouble": post.trouble,
    }
