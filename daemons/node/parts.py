"""What a node agent is made of: opened in an order in which a second agent harms nothing of the first."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any, Protocol

from checks.host import Host, Unreadable, recorded
from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials, credentials, secret
from daemons.alerts.desk import AlertDesk
from daemons.config import Config
from daemons.errors import ConfigError, MusterError, StateError
from daemons.incidents import Incident
from daemons.ledger import Keep, Ledger, LedgerChange
from daemons.node.api import listen, token
from daemons.node.board import AlertState
from daemons.node.outbox import Post, Sender
from daemons.node.state import ALERTS_FILE, LEDGER_FILE, StateDirectory, directory


class Desk(Protocol):
    """What the agent asks of daemons.alerts.desk.AlertDesk."""

    @property
    def cursor(self) -> int: ...
    def take(self, changes: Sequence[LedgerChange]) -> object: ...
    def tick(self) -> object: ...
    def incidents(self) -> list[dict[str, Any]]: ...
    def acknowledge(self, incident: str, who: str, note: str) -> None: ...
    def resolve(self, incident: str, who: str, note: str) -> None: ...
    def state(self) -> AlertState: ...
    def counts(self) -> Mapping[str, int]: ...
    def start(self) -> None: ...
    def close(self) -> None: ...

    def going_on(self) -> Sequence[Incident]: ...
    def reload(self, config: AlertsConfig, credentials: Credentials) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the agent has open. bound: the API's socket. token: of the API. end: gives everything back, in order.

    fleet: sends to the fleet daemon; None where none is configured.
    """

    host: Host
    state: Path
    ledger: Ledger
    desk: Desk
    bound: socket
    token: str
    end: Sequence[tuple[str, Callable[[], None]]]
    fleet: Post | None = None


def open_parts(config: Config, replay: Path | None = None, environment: Mapping[str, str] = os.environ) -> Parts:
    """Everything that an agent needs. Raises MusterError with the remedy; then nothing stays open.

    replay: a recorded node to watch instead of this machine; without node.state its ledger is thrown away at the end.
    """
    end: list[tuple[str, Callable[[], None]]] = []
    with ExitStack() as undo:

        def give_back(what: str, step: Callable[[], None]) -> None:
            end.insert(0, (what, step))
            undo.callback(step)

        secrets = credentials(environment)
        fleet = _fleet(config, environment)
        bound = listen(config.node.listen)
        give_back("close the API's socket", bound.close)
        path = directory(config.node.state, environment)
        if replay is not None and not config.node.state:
            path = Path(tempfile.mkdtemp(prefix="muster-replay-"))
            give_back("throw the replay's state away", lambda: shutil.rmtree(path, ignore_errors=True))
        state = StateDirectory(path)
        give_back("free the state directory", state.close)
        host = open_host(config, replay)
        give_back("end the probes", host.close)
        ledger = _ledger(path / LEDGER_FILE, config, host)
        give_back("close the ledger", ledger.close)
        desk = AlertDesk(path / ALERTS_FILE, config.alerts, host.clock, secrets)
        give_back("end the delivery", desk.close)
        found = Parts(
            host=host, state=path, ledger=ledger, desk=desk, bound=bound, token=token(path), end=end, fleet=fleet
        )
        undo.pop_all()
    return found


def open_host(config: Config, replay: Path | None) -> Host:
    """This machine, or a recorded one whose time goes on from when it was recorded. Raises MusterError."""
    if replay is None:
        return Host(node=config.node.name)
    try:
        return recorded(replay, running=True)
    except Unreadable as error:
        raise MusterError(str(error)) from error


def _ledger(path: Path, config: Config, host: Host) -> Ledger:
    keep = Keep(days=config.node.keep_days, changes=config.node.keep_changes)
    try:
        return Ledger(path, host.clock, keep)
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"{path}: cannot be opened ({error}): see that its directory has room and is ours") from error


def _fleet(config: Config, environment: Mapping[str, str]) -> Post | None:
    url = config.fleet.url
    if not url:
        return None
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"fleet.url: {url!r} is no address such as https://fleet.example:9809")
    key = secret("fleet_token", environment)
    if not key:
        raise ConfigError(
            "fleet.url: needs this node's token: set MUSTER_FLEET_TOKEN, or the systemd credential fleet_token"
        )
    try:
        return Sender(config.fleet, key)
    except OSError as error:
        raise ConfigError(f"fleet.ca: {config.fleet.ca}: cannot be read: {error.strerror or error}") from error
