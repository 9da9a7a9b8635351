"""The demonstration as `muster up --demo` shows it: beside the agent that watches this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemons.alerts.posts import PostState
from daemons.alerts.record import slack_messages
from daemons.demo.demonstration import Demonstration
from daemons.errors import MusterError
from daemons.node.agent import NodeAgent
from daemons.node.state import ALERTS_FILE


class Beside:
    """Starts the demonstration once the agent listens, and ends it with the agent."""

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self._running: Demonstration | None = None

    def began(self, agent: NodeAgent) -> None:
        """Called in the agent's main loop: everything that takes time happens in a thread."""
        from rich.console import Console

        from daemons.alerts.preview import preview

        console = Console(highlight=False)
        self._running = Demonstration(
            config=self._config,
            incidents=lambda: list(agent.ask(agent.incidents).result(timeout=10)),
            message=lambda incident: _message(agent.state / ALERTS_FILE, incident),
            say=lambda text: console.print(text, markup=False, soft_wrap=True),
            show=lambda message: console.print(preview(message, width=min(console.width, 100))),
        )
        self._running.start()

    def stop(self) -> None:
        """End it and all it started."""
        if self._running is not None:
            self._running.stop()


def _message(path: Path, incident: str) -> tuple[bool, Mapping[str, Any]] | None:
    """The first message about an incident and whether it was posted, None while there is none."""
    try:
        found = slack_messages(path, incident)
    except MusterError:
        return None
    return (found[0][0] == PostState.SENT, found[0][1]) if found else None
