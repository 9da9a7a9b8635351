"""Makes a node agent out of a configuration file."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from daemons.config import load
from daemons.node.agent import NodeAgent
from daemons.node.parts import open_parts


def make_agent(
    config_path: Path | None, replay: Path | None = None, began: Callable[[NodeAgent], None] = lambda agent: None
) -> NodeAgent:
    """The agent, everything of it opened. began: called once it listens. Raises MusterError."""
    config = load(config_path)
    return NodeAgent(config, open_parts(config, replay), version("muster"), lambda: load(config_path), began)
