"""Where the fleet daemon keeps what is its own: state directory, secret, and the address of its store."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from daemons.alerts.credentials import secret
from daemons.errors import StateError
from daemons.fleet.config import FleetConfig
from daemons.node.state import directory

SECRET_FILE = "fleet-secret"
GIVEN_FILE = "given.db"


def fleet_directory(config: FleetConfig, environment: Mapping[str, str] = os.environ, root: bool | None = None) -> Path:
    """`fleet.state`, else systemd's StateDirectory, else muster-fleet beside the node's default."""
    found = directory(config.state, environment, root)
    return found if config.state or environment.get("STATE_DIRECTORY") else found.with_name("muster-fleet")


def fleet_secret(state: Path, environment: Mapping[str, str] = os.environ) -> str:
    """What the nodes' tokens are made of.

    MUSTER_FLEET_SECRET or credential fleet_secret, else a file of the state directory that is made on first use.
    Raises StateError when it cannot be read or made.
    """
    given = secret("fleet_secret", environment)
    if given:
        return given
    path = state / SECRET_FILE
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        text = path.read_text().strip()
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror}: run this as the user of the fleet daemon, or set MUSTER_FLEET_SECRET"
        ) from error
    if not text:
        raise StateError(f"{path}: is empty: restore it from a backup, or delete it and give every node its new token")
    return text


def _make(path: Path) -> None:
    """Whole or not there: a token of half a secret would be refused for ever."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)
    except FileExistsError:
        pass  # another process was quicker, and its secret holds
    finally:
        part.unlink()


def store_url(config: FleetConfig, state: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Credential fleet_database, else `fleet.store`, else SQLite in the state directory."""
    return secret("fleet_database", environment) or config.store or f"sqlite:///{state}/fleet.db"
