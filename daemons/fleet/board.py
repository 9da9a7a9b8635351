"""What the fleet daemon shows of itself: a snapshot that its main loop replaces and the API and /metrics only read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemons.fleet.admission import Why
from daemons.fleet.steward import Stewarding
from daemons.node.board import AlertState


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetBoard:
    """nodes: how many by status ("silent" is one). batches: since the start, by what was done. changes: taken since.

    behind: changes that the desk has not been given yet. store: why it does not answer, "" while it does.
    """

    version: str
    started: float
    nodes: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[Why, int] = field(default_factory=dict)
    changes: int = 0
    behind: int = 0
    store: str = ""
    incidents: Mapping[str, int] = field(default_factory=dict)
    alerts: AlertState = field(default_factory=AlertState)
    policy: Stewarding | None = None

    @property
    def healthy(self) -> bool:
        """Whether it can do its work."""
        return not self.store

    def health(self) -> dict[str, Any]:
        """As /healthz shows it."""
        return {
            "healthy": self.healthy,
            "store": self.store or "ok",
            "alerts": self.alerts.trouble or "ok",
            "alerts_waiting": self.alerts.waiting,
            "changes_waiting": self.behind,
            "engine": "none" if self.policy is None else self.policy.trouble or "ok",
            "nodes": dict(self.nodes),
        }
