"""The tables of the desk's file, written by difference: a burst costs what changed, not what there is."""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from daemons.alerts.posts import FINISHED, Post, Thread
from daemons.incidents import Incident, Member, Situation, Storm

SCHEMA_VERSION = 1
_POST = tuple(f.name for f in msgspec.structs.fields(Post))
_THREAD = tuple(f.name for f in msgspec.structs.fields(Thread))
_SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE incidents (id TEXT PRIMARY KEY, live INTEGER NOT NULL, changed REAL NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE members (incident TEXT NOT NULL, fingerprint TEXT NOT NULL, body BLOB NOT NULL,"
    " PRIMARY KEY (incident, fingerprint)) WITHOUT ROWID",
    "CREATE TABLE early (fingerprint TEXT PRIMARY KEY, seq INTEGER NOT NULL)",
    f"CREATE TABLE posts ({', '.join(n + (' INTEGER PRIMARY KEY' if n == 'id' else '') for n in _POST)})",
    "CREATE INDEX posts_by_subject ON posts (subject)",
    "CREATE INDEX posts_by_state ON posts (state)",
    f"CREATE TABLE threads ({', '.join(_THREAD)}, PRIMARY KEY (channel, subject))",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_UPSERT_INCIDENT = (  # keeps the row's place: the order of rows is the order of opening
    "INSERT INTO incidents VALUES (?, 1, ?, ?) ON CONFLICT (id)"
    " DO UPDATE SET live = 1, changed = excluded.changed, body = excluded.body"
)
_IS_FINISHED = f"state IN ({', '.join(repr(str(state)) for state in sorted(FINISHED))})"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The single values. cursor: last change of the ledger that was taken. sent: messages by channel, ever.

    last_post: highest id given. lost_until: changes up to then were told by a record that is lost, 0 for none.
    """

    cursor: int = 0
    last_post: int = 0
    sent: dict[str, int] = {}
    lost_until: float = 0.0
    storm: Storm | None = None
    posts: tuple[float, ...] = ()
    storm_posts: tuple[float, ...] = ()


@dataclass(slots=True)
class Saved:
    """All that a process needs to go on where the last one ended."""

    situation: Situation = field(default_factory=Situation)
    facts: Facts = field(default_factory=Facts)
    posts: list[Post] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)


def create(connection: sqlite3.Connection) -> None:
    """The tables of an empty file."""
    for statement in _SCHEMA:
        connection.execute(statement)


def read(connection: sqlite3.Connection) -> Saved:
    """The live situation, the unfinished messages, the threads."""
    stored = connection.execute("SELECT value FROM facts WHERE name = 'facts'").fetchone()
    facts = msgspec.json.decode(stored[0], type=Facts) if stored else Facts()
    situation = Situation(
        incidents={incident.id: incident for incident in incidents(connection, "live = 1 ORDER BY rowid")},
        storm=facts.storm,
        posts=facts.posts,
        storm_posts=facts.storm_posts,
        early=dict(connection.execute("SELECT fingerprint, seq FROM early ORDER BY rowid").fetchall()),
    )
    threads = connection.execute(f"SELECT {', '.join(_THREAD)} FROM threads").fetchall()
    return Saved(
        situation=situation,
        facts=facts,
        posts=posts(connection, f"NOT {_IS_FINISHED} ORDER BY id"),
        threads=[msgspec.convert(dict(zip(_THREAD, row, strict=True)), Thread) for row in threads],
    )


def incidents(connection: sqlite3.Connection, where: str, *values: object) -> Iterator[Incident]:
    """Incidents with their members."""
    for key, body in connection.execute(f"SELECT id, body FROM incidents WHERE {where}", values).fetchall():
        rows = connection.execute("SELECT fingerprint, body FROM members WHERE incident = ?", (key,))
        members = {fingerprint: msgspec.json.decode(member, type=Member) for fingerprint, member in rows}
        yield msgspec.structs.replace(msgspec.json.decode(body, type=Incident), members=members)


def posts(connection: sqlite3.Connection, where: str, *values: object) -> list[Post]:
    """Messages with all they hold."""
    rows = connection.execute(f"SELECT {', '.join(_POST)} FROM posts WHERE {where}", values).fetchall()
    return [msgspec.convert(dict(zip(_POST, row, strict=True)), Post) for row in rows]


def store_situation(connection: sqlite3.Connection, situation: Situation, before: Situation) -> None:
    """What differs of the situation; incidents that left it stay in the record."""
    for incident in situation.incidents.values():
        known = before.incidents.get(incident.id)
        if incident is not known:
            _store_incident(connection, incident, known)
    gone = [(key,) for key in before.incidents if key not in situation.incidents]
    connection.executemany("UPDATE incidents SET live = 0 WHERE id = ?", gone)
    _store_early(connection, situation.early, before.early)


def _store_incident(connection: sqlite3.Connection, incident: Incident, before: Incident | None) -> None:
    """An incident of ten thousand members costs the members that changed, not all of them."""
    body = msgspec.json.encode(msgspec.structs.replace(incident, members={}))
    connection.execute(_UPSERT_INCIDENT, (incident.id, incident.last_change, body))
    known: Mapping[str, Member] = before.members if before else {}
    if known is incident.members:
        return
    changed = [
        (incident.id, fingerprint, msgspec.json.encode(member))
        for fingerprint, member in incident.members.items()
        if member is not known.get(fingerprint)
    ]
    connection.executemany("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", changed)


def _store_early(connection: sqlite3.Connection, early: Mapping[str, int], before: Mapping[str, int]) -> None:
    if early == before:
        return
    gone = [(fingerprint,) for fingerprint in before if fingerprint not in early]
    connection.executemany("DELETE FROM early WHERE fingerprint = ?", gone)
    news = [(fingerprint, seq) for fingerprint, seq in early.items() if before.get(fingerprint) != seq]
    connection.executemany("INSERT OR REPLACE INTO early VALUES (?, ?)", news)


def store_facts(connection: sqlite3.Connection, facts: Facts) -> None:
    """The single values."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES ('facts', ?)", (msgspec.json.encode(facts).decode(),))


def store_posts(connection: sqlite3.Connection, changed: list[Post]) -> None:
    """Messages, new or in another state."""
    marks = ", ".join("?" * len(_POST))
    rows = [
        tuple(str(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(post))
        for post in changed
    ]
    connection.executemany(f"INSERT OR REPLACE INTO posts VALUES ({marks})", rows)


def store_threads(connection: sqlite3.Connection, changed: list[Thread]) -> None:
    """Threads, new or in another channel."""
    marks = ", ".join("?" * len(_THREAD))
    rows = [msgspec.structs.astuple(thread) for thread in changed]
    connection.executemany(f"INSERT OR REPLACE INTO threads VALUES ({marks})", rows)


def prune(connection: sqlite3.Connection, before: float) -> None:
    """Drop what is over and older than this moment."""
    connection.execute("DELETE FROM incidents WHERE live = 0 AND changed < ?", (before,))
    connection.execute("DELETE FROM members WHERE incident NOT IN (SELECT id FROM incidents)")
    connection.execute(f"DELETE FROM posts WHERE at < ? AND {_IS_FINISHED}", (before,))
    connection.execute(
        "DELETE FROM threads WHERE at < ? AND subject NOT IN (SELECT id FROM incidents)",
        (before,),
    )
