"""What an alert and a recording rule of ours are, with the series that prove an alert."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Where the runbooks are to be read; a site that serves docs/ on its own pages puts that address here.
RUNBOOKS = "docs/runbooks"


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule: a name that dashboards and alerts share, and what it stands for."""

    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Series in promtool's notation, one sample every `step` minutes, by which an alert is tested.

    sick: series -> (values while the fault lasts, and values after it). well: series that must not fire it.
    labels: what the alert that fires carries, beside its severity; value: how its text shows the value.
    fires, silent, resolved: minutes at which it fires, does not fire yet (-1: it fires at once), and fires no longer.
    """

    sick: Mapping[str, tuple[str, str]]
    well: Mapping[str, str]
    labels: Mapping[str, str]
    value: str = ""
    step: int = 1
    fires: int = 55
    silent: int = 0
    resolved: int = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert. lasting: how long it must be so, as Prometheus writes it. advice: the first thing to do."""

    name: str
    expr: str
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str
    advice: str
    proof: Proof

    @property
    def runbook(self) -> str:
        """Its page."""
        return f"{RUNBOOKS}/{self.name}.md"
