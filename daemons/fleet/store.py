"""What the fleet knows, in SQLite (the default) or PostgreSQL: every change of every node exactly once, in order.

A batch is applied in one transaction: the changes, what is open by them, and how far the node has come. Whoever reads
the changes (incidents) keeps a cursor of its own, so a crash between the two loses nothing and repeats nothing.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from checks.base import Finding
from daemons.errors import MusterError, StateError
from daemons.fleet import tables
from daemons.fleet.admission import Admission, Known, admit
from daemons.ledger.records import Kind, LedgerChange
from daemons.wire import Batch

_CLEARED = Kind.CLEARED
# The ledger of what the fleet itself has seen of a node.
OWN = "fleet"
# Of every writing transaction on PostgreSQL: numbers of changes are then in the order of commits, also when a fleet
# that was killed has left a transaction that its server still ends. Any number; this one is "muster" in letters.
_LOCK = 0x6D7573746572
_POSTGRES = {"connect_timeout": 5, "options": "-c statement_timeout=30000 -c lock_timeout=15000"}


class StoreAway(MusterError):
    """The store does not answer, or cannot be written, at the moment."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A change with where it came from: number `seq` of that node's ledger. change.seq is the store's own number."""

    node: str
    ledger: str
    seq: int
    change: LedgerChange


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One node as it last told of itself.

    well: when it said so, while the last that it said is that all its checks are ok, else 0.
    """

    node: str
    known: Known
    silent: bool
    status: str = "unknown"
    agent: str = ""
    boot_id: str = ""
    checks: int = 0
    facts: Mapping[str, str] = {}
    well: float = 0.0


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    status: str = "unknown"
    agent: str = ""
    boot_id: str = ""
    checks: int = 0
    facts: Mapping[str, str] = {}
    well: float = 0.0


class Store:
    """One store. Safe from several threads of one process; SQLite takes one fleet daemon at a time.

    url: SQLAlchemy's, such as sqlite:////var/lib/muster/fleet.db or postgresql+psycopg://host/muster.
    Raises StateError when it cannot be opened; every method raises StoreAway while it does not answer.
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
        return self.apply_all([batch], now)[0]

    def apply_all(self, batches: Sequence[Batch], now: float) -> list[Admission]:
        """Take batches in this order, in one transaction: a disk is synced once for all nodes that wait for it."""
        with self._writing() as connection:
            known = self._known(connection, {batch.node for batch in batches})
            admissions: list[Admission] = []
            rows: dict[str, dict[str, Any]] = {}
            fresh: list[Origin] = []
            for batch in batches:
                admission = admit(known.get(batch.node), batch, now)
                admissions.append(admission)
                if admission.error:
                    continue
                if admission.replaced:
                    self._insert(connection, fresh)
                    fresh = self._ended(connection, batch.node, known[batch.node], now)
                fresh += (_origin(batch.node, batch.ledger, change) for change in admission.fresh)
                known[batch.node] = told = after(batch, admission, now)
                rows[batch.node] = _node_row(batch.node, told, _told(batch, now))
            self._insert(connection, fresh)
            self._upsert(connection, tables.nodes, list(rows.values()), "node", keep=("silent",))
            return admissions

    def sync(self, nodes: Iterable[NodeRow]) -> None:
        """Write when these nodes last spoke and what they said of themselves; how far they are stays as it is."""
        new: dict[str, Any] = {name: sa.bindparam(name) for name in ("seen", "interval", "told")}
        rows = [{"of": n.node, "seen": n.known.seen, "interval": n.known.interval, "told": _told_of(n)} for n in nodes]
        this = tables.nodes.update().where(tables.nodes.c.node == sa.bindparam("of"))
        if rows:
            with self._writing() as connection:
                connection.execute(this.values(new), rows)

    def add(self, node: str, changes: Iterable[tuple[Kind, Finding]], now: float) -> None:
        """Changes that the fleet itself has seen of a node or of the cluster (a silent node, a canary)."""
        with self._writing() as connection:
            self._add(connection, node, changes, now)

    def silence(self, changes: Mapping[str, tuple[Kind, Finding]], silent: bool, now: float) -> None:
        """These nodes fell silent, or speak again: the change and that it was told, in one transaction."""
        with self._writing() as connection:
            for node, change in changes.items():
                self._add(connection, node, [change], now)
            marked = tables.nodes.update().where(tables.nodes.c.node == sa.bindparam("of")).values(silent=silent)
            if changes:
                connection.execute(marked, [{"of": node} for node in changes])

    def _add(self, connection: sa.Connection, node: str, changes: Iterable[tuple[Kind, Finding]], now: float) -> None:
        last = self._last(connection, node, OWN)
        self._insert(
            connection,
            [
                Origin(node=node, ledger=OWN, seq=seq, change=LedgerChange(seq=seq, kind=kind, finding=finding, at=now))
                for seq, (kind, finding) in enumerate(changes, last + 1)
            ],
        )

    def changes_after(self, number: int, limit: int = 1000) -> list[LedgerChange]:
        """Changes of all nodes in the order in which they were applied; their seq is the store's own number."""
        return [origin.change for origin in self.origins_after(number, limit)]

    def origins_after(self, number: int, limit: int = 1000) -> list[Origin]:
        """The same, each with the ledger that it came from."""
        rows = sa.select(tables.changes).where(tables.changes.c.id > number).order_by(tables.changes.c.id).limit(limit)
        with self._reading() as connection:
            return [
                Origin(
                    node=row.node,
                    ledger=row.ledger,
                    seq=row.seq,
                    change=LedgerChange(seq=row.id, kind=Kind(row.kind), finding=_finding(row.body), at=row.at),
                )
                for row in connection.execute(rows)
            ]

    def newest_change(self) -> int:
        """The store's number of the newest change, 0 for none."""
        with self._reading() as connection:
            return connection.execute(sa.select(sa.func.max(tables.changes.c.id))).scalar() or 0

    def start_above(self, number: int) -> bool:
        """Number what comes next above this, as a reader of a store that was restored has seen; whether it had to."""
        with self._writing() as connection:
            newest = connection.execute(sa.select(sa.func.max(tables.changes.c.id))).scalar() or 0
            if connection.dialect.name == "postgresql":
                used = connection.execute(sa.text("SELECT last_value FROM changes_id_seq")).scalar() or 0
                if max(newest, used) < number:
                    connection.execute(sa.text("SELECT setval('changes_id_seq', :n)"), {"n": number})
                return bool(max(newest, used) < number)
            found = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
            if max(newest, connection.execute(found).scalar() or 0) >= number:
                return False
            connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'changes'"))
            connection.execute(sa.text("INSERT INTO sqlite_sequence VALUES ('changes', :n)"), {"n": number})
            return True

    def nodes(self) -> list[NodeRow]:
        """All nodes that ever spoke, in order of name."""
        with self._reading() as connection:
            return [_node(row) for row in connection.execute(sa.select(tables.nodes).order_by(tables.nodes.c.node))]

    def open(self, node: str = "", status: str = "") -> list[Finding]:
        """What is open, on one node or on all, of one status or of any."""
        chosen = sa.select(tables.findings.c.body).order_by(tables.findings.c.node, tables.findings.c.since)
        if node:
            chosen = chosen.where(tables.findings.c.node == node)
        if status:
            chosen = chosen.where(tables.findings.c.status == status)
        with self._reading() as connection:
            return [_finding(body) for (body,) in connection.execute(chosen)]

    def forget_node(self, node: str) -> bool:
        """A node that is gone for good; whether there was one."""
        with self._writing() as connection:
            for table in (tables.findings, tables.changes):
                connection.execute(table.delete().where(table.c.node == node))
            return bool(connection.execute(tables.nodes.delete().where(tables.nodes.c.node == node)).rowcount)

    def setting(self, name: str) -> str | None:
        """A value kept under a name."""
        with self._reading() as connection:
            chosen = sa.select(tables.settings.c.value).where(tables.settings.c.name == name)
            return connection.execute(chosen).scalar()

    def keep(self, name: str, value: str) -> None:
        """Keep a value under a name."""
        self.keep_all({name: value})

    def keep_all(self, values: Mapping[str, str], audit: Iterable[Mapping[str, Any]] = ()) -> None:
        """Keep values under their names and append to the audit log, in one transaction."""
        rows = list(audit)
        with self._writing() as connection:
            self._upsert(connection, tables.settings, [{"name": n, "value": v} for n, v in values.items()], "name")
            if rows:
                connection.execute(tables.audit.insert(), rows)

    def record(self, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to the audit log or the record of canaries."""
        values = list(rows)
        if values:
            with self._writing() as connection:
                connection.execute(table.insert(), values)

    def newest(self, table: sa.Table, limit: int) -> list[sa.Row[Any]]:
        """The newest rows of the audit log or the record of canaries, newest first."""
        with self._reading() as connection:
            return list(connection.execute(sa.select(table).order_by(table.c.id.desc()).limit(limit)))

    def prune(self, before: float, read: int) -> int:
        """Forget what is older than `before` and was read (up to the number `read`); how many changes went."""
        with self._writing() as connection:
            for table in (tables.audit, tables.canaries):
                connection.execute(table.delete().where(table.c.at < before))
            old = tables.changes.delete().where(tables.changes.c.at < before, tables.changes.c.id <= read)
            return int(connection.execute(old).rowcount)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._write, _answering(), self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with _answering(), self._engine.connect() as connection:
            yield connection

    def _known(self, connection: sa.Connection, nodes: Iterable[str]) -> dict[str, Known]:
        chosen = sa.select(tables.nodes).where(tables.nodes.c.node.in_(sorted(nodes)))
        return {row.node: _node(row).known for row in connection.execute(chosen)}

    def _last(self, connection: sa.Connection, node: str, ledger: str) -> int:
        chosen = sa.select(sa.func.max(tables.changes.c.seq)).where(
            tables.changes.c.node == node, tables.changes.c.ledger == ledger
        )
        return connection.execute(chosen).scalar() or 0

    def _ended(self, connection: sa.Connection, node: str, known: Known, now: float) -> list[Origin]:
        """A node that began a new ledger tells anew what is still wrong: what the old one held open is over."""
        chosen = sa.select(tables.findings.c.body).where(
            tables.findings.c.node == node, tables.findings.c.ledger == known.ledger
        )
        last = max(known.applied, self._last(connection, node, known.ledger))
        bodies = [_finding(body) for (body,) in connection.execute(chosen)]
        ended = [
            LedgerChange(seq=seq, kind=_CLEARED, finding=finding, at=now)
            for seq, finding in enumerate(bodies, last + 1)
        ]
        return [_origin(node, known.ledger, change) for change in ended]

    def _insert(self, connection: sa.Connection, fresh: Sequence[Origin]) -> None:
        if not fresh:
            return
        connection.execute(tables.changes.insert(), [_change_row(origin) for origin in fresh])
        latest = {origin.change.finding.fingerprint: origin for origin in fresh}
        over = [{"of": name} for name, origin in latest.items() if origin.change.kind is _CLEARED]
        if over:
            gone = tables.findings.delete().where(tables.findings.c.fingerprint == sa.bindparam("of"))
            connection.execute(gone, over)
        still = [_open_row(origin) for origin in latest.values() if origin.change.kind is not _CLEARED]
        self._upsert(connection, tables.findings, still, "fingerprint")

    def _upsert(
        self,
        connection: sa.Connection,
        table: sa.Table,
        rows: Sequence[Mapping[str, Any]],
        key: str,
        keep: tuple[str, ...] = (),
    ) -> None:
        if not rows:
            return
        make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        insert = make(table)
        news = {name: insert.excluded[name] for name in rows[0] if name != key and name not in keep}
        connection.execute(insert.on_conflict_do_update(index_elements=[key], set_=news), list(rows))


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """A store that is away, full or locked is said as such; anything else is a fault of ours."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.TimeoutError) as error:
        why = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        raise StoreAway(f"the store does not answer: {why.splitlines()[0]}") from error


def after(batch: Batch, admission: Admission, now: float) -> Known:
    """What is known of a node once its batch was taken."""
    return Known(
        ledger=batch.ledger, machine=batch.machine, applied=admission.applied, seen=now, interval=batch.interval
    )


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.engine.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = _POSTGRES if parsed.get_backend_name() == "postgresql" else {}
        engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args=arguments)
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


def _origin(node: str, ledger: str, change: LedgerChange) -> Origin:
    return Origin(node=node, ledger=ledger, seq=change.seq, change=change)


def _change_row(origin: Origin) -> dict[str, Any]:
    change = origin.change
    return {
        "node": origin.node,
        "ledger": origin.ledger,
        "seq": origin.seq,
        "at": change.at,
        "kind": str(change.kind),
        "body": msgspec.json.encode(change.finding),
    }


def _open_row(origin: Origin) -> dict[str, Any]:
    finding = origin.change.finding
    return {
        "fingerprint": finding.fingerprint,
        "node": origin.node,
        "ledger": origin.ledger,
        "cause": finding.cause,
        "status": str(finding.status),
        "component": finding.component,
        "since": finding.first_seen,
        "body": msgspec.json.encode(finding),
    }


def _told(batch: Batch, now: float) -> _Told:
    return _Told(
        status=batch.status,
        agent=batch.agent,
        boot_id=batch.boot_id,
        checks=batch.checks,
        facts=batch.facts,
        well=now if batch.status == "ok" else 0.0,
    )


def heard(batch: Batch, known: Known, silent: bool, now: float) -> NodeRow:
    """The node as this batch shows it."""
    return NodeRow(node=batch.node, known=known, silent=silent, **msgspec.structs.asdict(_told(batch, now)))


def _told_of(node: NodeRow) -> bytes:
    return msgspec.json.encode(
        _Told(
            status=node.status,
            agent=node.agent,
            boot_id=node.boot_id,
            checks=node.checks,
            facts=node.facts,
            well=node.well,
        )
    )


def _node_row(node: str, known: Known, told: _Told) -> dict[str, Any]:
    return {
        "node": node,
        "ledger": known.ledger,
        "machine": known.machine,
        "applied": known.applied,
        "seen": known.seen,
        "interval": known.interval,
        "silent": False,
        "told": msgspec.json.encode(told),
    }


def _node(row: Any) -> NodeRow:
    told = msgspec.json.decode(row.told, type=_Told)
    known = Known(ledger=row.ledger, machine=row.machine, applied=row.applied, seen=row.seen, interval=row.interval)
    return NodeRow(node=row.node, known=known, silent=row.silent, **msgspec.structs.asdict(told))
