"""The fleet's store as tables, the same on SQLite and PostgreSQL, and how an older store becomes a newer one."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from daemons.errors import StateError

META = sa.MetaData()
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts up only plain INTEGER keys

settings = sa.Table(
    "settings", META, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False)
)
nodes = sa.Table(
    "nodes",
    META,
    sa.Column("node", sa.String, primary_key=True),
    sa.Column("ledger", sa.String, nullable=False),
    sa.Column("machine", sa.String, nullable=False),
    sa.Column("applied", _BIG, nullable=False),
    sa.Column("seen", sa.Float, nullable=False),
    sa.Column("interval", sa.Float, nullable=False),
    sa.Column("silent", sa.Boolean, nullable=False),
    sa.Column("told", sa.LargeBinary, nullable=False),
)
# Every change once: the key is what makes "at least once on the wire" "exactly once in the store".
changes = sa.Table(
    "changes",
    META,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("node", sa.String, nullable=False),
    sa.Column("ledger", sa.String, nullable=False),
    sa.Column("seq", _BIG, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("node", "ledger", "seq"),
    sqlite_autoincrement=True,  # an id is never used twice, also after the newest rows were pruned
)
findings = sa.Table(
    "findings",
    META,
    sa.Column("fingerprint", sa.String, primary_key=True),
    sa.Column("node", sa.String, nullable=False, index=True),
    sa.Column("ledger", sa.String, nullable=False),
    sa.Column("cause", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("component", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
audit = sa.Table(
    "audit",
    META,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("node", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
canaries = sa.Table(
    "canaries",
    META,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)


def _first(connection: sa.Connection) -> None:
    META.create_all(connection)


# One step per version, never edited once released; a later one alters what `_first` of an older muster has made.
MIGRATIONS: Sequence[Callable[[sa.Connection], None]] = (_first,)


def migrate(connection: sa.Connection, migrations: Sequence[Callable[[sa.Connection], None]] = MIGRATIONS) -> int:
    """Bring the store to the newest version within the caller's transaction; how many steps it took.

    Raises StateError for a store that a newer muster has written.
    """
    version = _version(connection)
    if version > len(migrations):
        raise StateError(
            f"fleet.store: written by a newer muster (schema {version}, this one knows {len(migrations)}): start that"
            " version, or give an empty store"
        )
    for step in migrations[version:]:
        step(connection)
    if version < len(migrations):
        connection.execute(settings.delete().where(settings.c.name == "schema"))
        connection.execute(settings.insert().values(name="schema", value=str(len(migrations))))
    return len(migrations) - version


def _version(connection: sa.Connection) -> int:
    if not sa.inspect(connection).has_table(settings.name):
        return 0
    found = connection.execute(sa.select(settings.c.value).where(settings.c.name == "schema")).scalar()
    return int(found or 0)
