"""Changes of findings as the ledger reports them, for tests of incidents and alerts."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from checks.base import Finding, Status
from daemons.alerts.config import AlertsConfig
from daemons.incidents import Kind, Situation, Tell, decide

START = 1_700_000_000.0


@dataclass(frozen=True)
class Seen:
    """One change of the ledger."""

    seq: int
    kind: str
    finding: Finding
    at: float


def finding(
    component: str = "gpu/3",
    status: Status = Status.FAIL,
    *,
    cause: str = "gpu.lost",
    node: str = "n12",
    source: str = "gpu_count",
    summary: str = "GPU fell off the bus",
    **more: object,
) -> Finding:
    """A finding as the runner stamps it; its fingerprint is readable."""
    found = Finding(
        component=component,
        status=status,
        summary=summary,
        cause=cause,
        node=node,
        source=source,
        fingerprint=f"{node}:{source}:{component}:{cause}",
        first_seen=START,
        last_seen=START,
    )
    return msgspec.structs.replace(found, **more)


class Story:
    """Tells a Situation one batch of changes after another; the sequence numbers and the time go on by themselves."""

    def __init__(self, config: AlertsConfig | None = None) -> None:
        self.config = config or AlertsConfig()
        self.situation = Situation()
        self.now = START
        self.seq = 0
        self.tells: list[Tell] = []

    def change(self, kind: str, found: Finding) -> Seen:
        self.seq += 1
        return Seen(self.seq, kind, found, self.now)

    def happens(self, *changes: tuple[str, Finding], after: float = 0.0) -> list[Kind]:
        """So many seconds later these changes come in one batch; the kinds of what is told."""
        self.now += after
        return self.takes([self.change(kind, found) for kind, found in changes])

    def takes(self, changes: Sequence[Seen]) -> list[Kind]:
        self.situation, tells = decide(self.situation, changes, self.now, self.config)
        self.tells += tells
        return [tell.kind for tell in tells]

    def passes(self, seconds: float) -> list[Kind]:
        """Time goes by and nothing happens."""
        return self.happens(after=seconds)
