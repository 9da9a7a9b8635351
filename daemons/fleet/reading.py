"""The fleet's store as the command line reads it, beside a daemon that runs or without one."""

from pathlib import Path

import msgspec

from daemons.config import load
from daemons.errors import StateError
from daemons.fleet import tables
from daemons.fleet.policy import Decision
from daemons.fleet.state import fleet_directory, store_url
from daemons.fleet.store import Store


def decisions(config_path: Path | None, limit: int) -> list[Decision]:
    """The newest of the audit log, newest first. Raises StateError."""
    config = load(config_path).fleet
    state = fleet_directory(config)
    url = store_url(config, state)
    if url == f"sqlite:///{state}/fleet.db" and not (state / "fleet.db").exists():
        raise StateError(f"{state}: no fleet daemon kept its store here: start one, or set fleet.state or fleet.store")
    store = Store(url)
    try:
        return [msgspec.json.decode(row.body, type=Decision) for row in store.newest(tables.audit, limit)]
    finally:
        store.close()
