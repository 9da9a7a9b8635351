"""What the fleet knows, in SQLite (the default) or PostgreSQL: every change of every node exactly once, in order.

A batch is applied in one transaction: the changes, what is open by them, and how far the node has come. Whoever reads
the changes (incidents) keeps a cursor of its own, so a crash between the two loses nothing and repeats nothing.
"""

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from checks.base import Finding
from daemons.errors import StateError
from daemons.fleet import tables
from daemons.fleet.admission import Admission, Known, admit
from daemons.ledger.records import Kind, LedgerChange
from daemons.wire import Batch

_CLEARED = Kind.CLEARED


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One node as it last told of itself."""

    node: str
    known: Known
    silent: bool
    status: str = "unknown"
    agent: str = ""
    boot_id: str = ""
    checks: int = 0
    facts: Mapping[str, str] = {}


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    status: str = "unknown"
    agent: str = ""
    boot_id: str = ""
    checks: int = 0
    facts: Mapping[str, str] = {}


class Store:
    """One store. Safe from several threads of one process; SQLite takes one fleet daemon at a time.

    url: SQLAlchemy's, such as sqlite:////var/lib/muster/fleet.db or postgresql+psycopg://host/muster.
    Raises StateError when it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._write = threading.Lock()
        try:
            with self._engine.begin() as connection:
                tables.migrate(connection)
        except sa.exc.DBAPIError as error:
            self.close()
            raise StateError(f"fleet.store: {_shown(url)}: {error.orig}") from error
        except StateError:
            self.close()
            raise

    def apply(self, batch: Batch, now: float) -> Admission:
        """Take a batch; when this returns, what was admitted is durable."""
        with self._write, self._engine.begin() as connection:
            admission = admit(self._known(connection, batch.node), batch, now)
            if not admission.error:
                self._take(connection, batch, admission, now)
            return admission

    def add(self, node: str, changes: Iterable[tuple[Kind, Finding]], now: float) -> None:
        """Changes that the fleet itself has seen of a node or of the cluster (a silent node, a canary)."""
        with self._write, self._engine.begin() as connection:
            after = connection.execute(
                sa.select(sa.func.max(tables.changes.c.seq)).where(
                    tables.changes.c.node == node, tables.changes.c.ledger == "fleet"
                )
            ).scalar()
            fresh = [
                LedgerChange(seq=(after or 0) + number, kind=kind, finding=finding, at=now)
                for number, (kind, finding) in enumerate(changes, 1)
            ]
            self._insert(connection, node, "fleet", fresh)

    def changes_after(self, number: int, limit: int = 1000) -> list[LedgerChange]:
        """Changes of all nodes in the order in which they were applied; their seq is the store's own number."""
        rows = sa.select(tables.changes).where(tables.changes.c.id > number).order_by(tables.changes.c.id).limit(limit)
        with self._engine.connect() as connection:
            return [
                LedgerChange(seq=row.id, kind=Kind(row.kind), finding=_finding(row.body), at=row.at)
                for row in connection.execute(rows)
            ]

    def nodes(self) -> list[NodeRow]:
        """All nodes that ever spoke, in order of name."""
        with self._engine.connect() as connection:
            return [_node(row) for row in connection.execute(sa.select(tables.nodes).order_by(tables.nodes.c.node))]

    def open(self, node: str = "") -> list[Finding]:
        """What is open, on one node or on all."""
        chosen = sa.select(tables.findings.c.body).order_by(tables.findings.c.node, tables.findings.c.since)
        if node:
            chosen = chosen.where(tables.findings.c.node == node)
        with self._engine.connect() as connection:
            return [_finding(body) for (body,) in connection.execute(chosen)]

    def mark_silent(self, node: str, silent: bool) -> None:
        """Remember that people were told that a node no longer speaks, or speaks again."""
        with self._write, self._engine.begin() as connection:
            connection.execute(tables.nodes.update().where(tables.nodes.c.node == node).values(silent=silent))

    def forget_node(self, node: str) -> bool:
        """A node that is gone for good; whether there was one."""
        with self._write, self._engine.begin() as connection:
            for table in (tables.findings, tables.changes):
                connection.execute(table.delete().where(table.c.node == node))
            return bool(connection.execute(tables.nodes.delete().where(tables.nodes.c.node == node)).rowcount)

    def setting(self, name: str) -> str | None:
        """A value kept under a name."""
        with self._engine.connect() as connection:
            chosen = sa.select(tables.settings.c.value).where(tables.settings.c.name == name)
            return connection.execute(chosen).scalar()

    def keep(self, name: str, value: str) -> None:
        """Keep a value under a name."""
        with self._write, self._engine.begin() as connection:
            self._upsert(connection, tables.settings, {"name": name, "value": value}, "name")

    def record(self, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to the audit log or the record of canaries."""
        values = list(rows)
        if values:
            with self._write, self._engine.begin() as connection:
                connection.execute(table.insert(), values)

    def newest(self, table: sa.Table, limit: int) -> list[sa.Row[Any]]:
        """The newest rows of the audit log or the record of canaries, newest first."""
        with self._engine.connect() as connection:
            return list(connection.execute(sa.select(table).order_by(table.c.id.desc()).limit(limit)))

    def prune(self, before: float, read: int) -> int:
        """Forget what is older than `before` and was read (up to the number `read`); how many changes went."""
        with self._write, self._engine.begin() as connection:
            for table in (tables.audit, tables.canaries):
                connection.execute(table.delete().where(table.c.at < before))
            old = tables.changes.delete().where(tables.changes.c.at < before, tables.changes.c.id <= read)
            return int(connection.execute(old).rowcount)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _known(self, connection: sa.Connection, node: str) -> Known | None:
        row = connection.execute(sa.select(tables.nodes).where(tables.nodes.c.node == node)).first()
        return _node(row).known if row else None

    def _take(self, connection: sa.Connection, batch: Batch, admission: Admission, now: float) -> None:
        told = _Told(
            status=batch.status, agent=batch.agent, boot_id=batch.boot_id, checks=batch.checks, facts=batch.facts
        )
        row = {
            "node": batch.node,
            "ledger": batch.ledger,
            "machine": batch.machine,
            "applied": admission.applied,
            "seen": now,
            "interval": batch.interval,
            "silent": False,
            "told": msgspec.json.encode(told),
        }
        if admission.replaced:
            self._end_ledger(connection, batch.node, admission.replaced, now)
        self._upsert(connection, tables.nodes, row, "node", keep=("silent",))
        self._insert(connection, batch.node, batch.ledger, admission.fresh)

    def _end_ledger(self, connection: sa.Connection, node: str, ledger: str, now: float) -> None:
        """A node that began a new ledger tells anew what is still wrong: what the old one held open is over."""
        chosen = sa.select(tables.findings.c.body).where(
            tables.findings.c.node == node, tables.findings.c.ledger == ledger
        )
        bodies = [_finding(body) for (body,) in connection.execute(chosen)]
        after = connection.execute(
            sa.select(sa.func.max(tables.changes.c.seq)).where(
                tables.changes.c.node == node, tables.changes.c.ledger == ledger
            )
        ).scalar()
        ended = [
            LedgerChange(seq=(after or 0) + number, kind=_CLEARED, finding=finding, at=now)
            for number, finding in enumerate(bodies, 1)
        ]
        self._insert(connection, node, ledger, ended)

    def _insert(self, connection: sa.Connection, node: str, ledger: str, fresh: Iterable[LedgerChange]) -> None:
        fresh = list(fresh)
        if not fresh:
            return
        connection.execute(
            tables.changes.insert(),
            [
                {
                    "node": node,
                    "ledger": ledger,
                    "seq": change.seq,
                    "at": change.at,
                    "kind": str(change.kind),
                    "body": msgspec.json.encode(change.finding),
                }
                for change in fresh
            ],
        )
        latest = {change.finding.fingerprint: change for change in fresh}
        over = [fingerprint for fingerprint, change in latest.items() if change.kind is _CLEARED]
        if over:
            connection.execute(tables.findings.delete().where(tables.findings.c.fingerprint.in_(over)))
        for change in latest.values():
            if change.kind is not _CLEARED:
                self._upsert(connection, tables.findings, _open_row(node, ledger, change), "fingerprint")

    def _upsert(
        self,
        connection: sa.Connection,
        table: sa.Table,
        values: Mapping[str, Any],
        key: str,
        keep: tuple[str, ...] = (),
    ) -> None:
        make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        insert = make(table).values(values)
        news = {name: insert.excluded[name] for name in values if name != key and name not in keep}
        connection.execute(insert.on_conflict_do_update(index_elements=[key], set_=news))


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.engine.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed, pool_pre_ping=True)
    except (sa.exc.ArgumentError, ImportError, OSError) as error:
        raise StateError(
            f"fleet.store: {_shown(url)}: {error}: give sqlite:////path/fleet.db or postgresql+psycopg://host/database"
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _pragmas)
    return engine


def _pragmas(connection: Any, record: object) -> None:
    # WAL lets readers go on while a batch is written; FULL makes a batch durable before its receipt is sent.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _shown(url: str) -> str:
    """The address without its password."""
    try:
        return sa.engine.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "the given address"


def _finding(body: bytes) -> Finding:
    return msgspec.json.decode(body, type=Finding)


def _open_row(node: str, ledger: str, change: LedgerChange) -> dict[str, Any]:
    finding = change.finding
    return {
        "fingerprint": finding.fingerprint,
        "node": node,
        "ledger": ledger,
        "cause": finding.cause,
        "status": str(finding.status),
        "component": finding.component,
        "since": finding.first_seen,
        "body": msgspec.json.encode(finding),
    }


def _node(row: Any) -> NodeRow:
    told = msgspec.json.decode(row.told, type=_Told)
    known = Known(ledger=row.ledger, machine=row.machine, applied=row.applied, seen=row.seen, interval=row.interval)
    return NodeRow(node=row.node, known=known, silent=row.silent, **msgspec.structs.asdict(told))
