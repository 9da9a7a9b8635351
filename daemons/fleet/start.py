"""Makes a fleet daemon out of a configuration file."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from daemons.config import load
from daemons.fleet.daemon import FleetDaemon
from daemons.fleet.parts import open_fleet


def make_fleet(config_path: Path | None, began: Callable[[FleetDaemon], None] = lambda fleet: None) -> FleetDaemon:
    """The daemon, everything of it opened. began: called once it listens. Raises MusterError."""
    config = load(config_path)
    return FleetDaemon(config, open_fleet(config), version("muster"), lambda: load(config_path), began)
