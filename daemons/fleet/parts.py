"""What a fleet daemon is made of: opened in an order in which a second one harms nothing of the first."""

import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from checks.clock import Clock, SystemClock
from daemons.alerts.credentials import credentials
from daemons.alerts.desk import AlertDesk
from daemons.config import Config
from daemons.engines import choose
from daemons.engines.base import Engine
from daemons.errors import ConfigError
from daemons.fleet.config import FleetConfig
from daemons.fleet.given import Given
from daemons.fleet.state import GIVEN_FILE, fleet_directory, fleet_secret, store_url
from daemons.fleet.store import Store
from daemons.incidents.correlation import Correlation, Topology
from daemons.node.api import listen, token
from daemons.node.state import ALERTS_FILE, StateDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetParts:
    """What the daemon has open. secret: of the nodes' tokens; token: of the API. end: gives everything back."""

    clock: Clock
    state: Path
    store: Store
    desk: AlertDesk
    given: Given
    engine: Engine
    bound: socket
    tls: tuple[str, str] | None
    secret: str
    token: str
    end: Sequence[tuple[str, Callable[[], None]]]


def open_fleet(config: Config, environment: Mapping[str, str] = os.environ) -> FleetParts:
    """Everything that a fleet daemon needs. Raises MusterError with the remedy; then nothing stays open."""
    end: list[tuple[str, Callable[[], None]]] = []
    with ExitStack() as undo:

        def give_back(what: str, step: Callable[[], None]) -> None:
            end.insert(0, (what, step))
            undo.callback(step)

        fleet, clock = config.fleet, SystemClock()
        tls = _tls(fleet)
        correlation = Correlation(topology=topology(fleet, {}))
        bound = listen(fleet.listen, "fleet.listen", "127.0.0.1:9809")
        give_back("close the API's socket", bound.close)
        path = fleet_directory(fleet, environment)
        state = StateDirectory(path, "fleet daemon", "fleet.state")
        give_back("free the state directory", state.close)
        key = fleet_secret(path, environment)
        store = Store(store_url(fleet, path, environment))
        give_back("close the store", store.close)
        given = Given(path / GIVEN_FILE)
        give_back("close the record of what was given", given.close)
        desk = AlertDesk(path / ALERTS_FILE, config.alerts, clock, credentials(environment), correlation=correlation)
        give_back("end the delivery", desk.close)
        engine = choose.engine(config.engine, path, environment=environment)
        found = FleetParts(
            clock=clock, state=path, store=store, desk=desk, given=given, engine=engine, bound=bound, tls=tls,
            secret=key, token=token(path), end=end,
        )  # fmt: skip
        undo.pop_all()
    return found


def topology(config: FleetConfig, leaves: Mapping[str, tuple[str, ...]]) -> Topology:
    """As configured, else as the engine knows it. Raises ConfigError."""
    try:
        return config.topology.topology(leaves)
    except ValueError as error:
        raise ConfigError(f"fleet.topology: {error}: write host lists such as n[1-16],n20") from error


def _tls(config: FleetConfig) -> tuple[str, str] | None:
    if not config.certificate and not config.key:
        return None
    if not (config.certificate and config.key):
        raise ConfigError("fleet.certificate, fleet.key: TLS needs both")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config.certificate, config.key)
    except OSError as error:  # SSLError is one
        raise ConfigError(
            f"fleet.certificate, fleet.key: {config.certificate}, {config.key}: {error.strerror or error}"
        ) from error
    return config.certificate, config.key
