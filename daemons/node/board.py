"""What the agent shows of itself: a snapshot that the main loop replaces and the API and /metrics only read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from checks.base import Finding, Status, worst
from checks.runner import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """One check as it stands. interval, deadline: seconds. runs, unknown_runs: since the agent started.

    last_looked: wall time of the last run that ended well, 0 if none has yet. started_monotonic: of a run in
    progress, else None.
    """

    name: str
    interval: float
    outcome: Outcome | None = None
    runs: int = 0
    unknown_runs: int = 0
    last_looked: float = 0.0
    started_monotonic: float | None = None

    def ran(self, outcome: Outcome) -> "CheckState":
        """The state after one more run."""
        return replace(
            self,
            outcome=outcome,
            runs=self.runs + 1,
            unknown_runs=self.unknown_runs + (outcome.status is Status.UNKNOWN),
            last_looked=outcome.at if outcome.looked else self.last_looked,
            started_monotonic=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState:
    """The alert queue: how many messages wait, for how long the oldest has (seconds), how many were sent by channel."""

    waiting: int = 0
    oldest_seconds: float = 0.0
    sent: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """The way to the fleet. url: "" without one. reached: when it last took a batch, epoch seconds, 0 if never.

    delivered: number of the last change that is durable there. trouble: why it takes nothing now.
    """

    url: str = ""
    reached: float = 0.0
    delivered: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The agent at one moment. open: findings as the ledger holds them. opened: how many were ever opened, by cause.

    degraded: why the ledger cannot be written, empty while it can. hung: doors with a child that cannot be killed.
    """

    node: str
    version: str
    started: float
    checks: Mapping[str, CheckState] = field(default_factory=dict)
    open: tuple[Finding, ...] = ()
    opened: Mapping[tuple[str, str], int] = field(default_factory=dict)
    incidents: Mapping[str, int] = field(default_factory=dict)
    alerts: AlertState = AlertState()
    degraded: str = ""
    hung: Mapping[str, float] = field(default_factory=dict)
    link: LinkState = LinkState()

    @property
    def status(self) -> Status:
        """The worst of all checks that have run; `unknown` before the first has."""
        return worst([state.outcome.status for state in self.checks.values() if state.outcome])
