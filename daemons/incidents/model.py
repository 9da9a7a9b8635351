"""What an incident is and what may be told of it; all values, none of them changes once made."""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from checks.base import Finding, Status
from daemons.errors import MusterError

# Findings kept whole in an incident, for people to read; the rest are counted.
SAMPLES = 5
# Lines of a digest: what is rarer is summed up as one more line.
DIGEST_LINES = 8


class UnknownIncident(MusterError):
    """No incident has that id."""


class Change(Protocol):
    """What the ledger says of one finding. seq: grows with every change; at: when it happened, epoch seconds.

    kind: opened, worsened, eased, repeated, cleared; others (acknowledged) do not touch an incident.
    """

    @property
    def seq(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def finding(self) -> Finding: ...
    @property
    def at(self) -> float: ...


class State(enum.StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One finding of an incident. seq: of the last change that was applied, so that a late one is known as late."""

    seq: int
    node: str
    component: str
    source: str
    cause: str
    status: Status
    open: bool
    count: int = 1


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What people know: since when, the worst they were told, of how many components and nodes, whether it is over."""

    at: float
    severity: Status
    components: int
    over: bool = False
    nodes: int = 0


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Findings that belong together.

    key: what they share (node, cause, component family). severity: the worst that is open, or was when it ended.
    members: by fingerprint, also those that are over. samples: the worst and first findings, whole.
    opened, last_change, resolved: epoch seconds; resolved is 0 while it goes on. flaps: how often it came back.
    storm: the storm whose messages speak for it, "" when it has messages of its own. tells: how many so far.
    ended: how it ended, in words. newest: when the youngest of its findings began. joined: keys of what it explains,
    or is explained by (a job and the node that it died of).
    """

    id: str
    key: str
    family: str
    cause: str
    severity: Status
    state: State
    opened: float
    last_change: float
    members: Mapping[str, Member] = {}
    samples: tuple[Finding, ...] = ()
    resolved: float = 0.0
    flaps: int = 0
    told: Told | None = None
    storm: str = ""
    tells: int = 0
    who: str = ""
    note: str = ""
    ended: str = ""
    newest: float = 0.0
    joined: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether nothing of it is open any more."""
        return self.state is State.RESOLVED

    def shown(self) -> list[Member]:
        """The members that say where it is: those open, or all of them once it is over."""
        return [m for m in self.members.values() if m.open] or list(self.members.values())

    @property
    def components(self) -> int:
        """How many components are affected."""
        return len({(m.node, m.component) for m in self.shown()})

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes affected, in order of name."""
        return tuple(sorted({m.node for m in self.shown()}))

    @property
    def count(self) -> int:
        """How often its findings were seen, all together."""
        return sum(m.count for m in self.members.values())


class Kind(enum.StrEnum):
    """Why people are told."""

    OPENED = "opened"
    WORSENED = "worsened"
    GREW = "grew"
    REOPENED = "reopened"
    REMINDER = "reminder"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    PASSED = "passed"  # a failure that was over before anybody could be told
    STORM = "storm"
    STORM_OVER = "storm_over"


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """More to tell than anybody can read: incidents folded into a few messages that speak for all of them.

    folded: incidents folded since the start. told: how many of them when it was last told. tells: its messages so far.
    """

    id: str
    opened: float
    folded: int = 0
    told: int = 0
    told_at: float = 0.0
    tells: int = 0


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """What the incidents of a storm share. Each of by_*: (name, findings), the most first, the rare ones summed up."""

    incidents: int
    still_open: int
    findings: int
    by_cause: tuple[tuple[str, int], ...]
    by_check: tuple[tuple[str, int], ...]
    by_node: tuple[tuple[str, int], ...]


class Tell(msgspec.Struct, frozen=True, kw_only=True):
    """One message to be sent. subject: id of the incident or storm; number: counts its messages from 1."""

    subject: str
    number: int
    kind: Kind
    at: float
    incident: Incident | None = None
    digest: Digest | None = None


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All incidents that go on or may come back, and what was told lately.

    posts, storm_posts: times of the messages about single incidents and about storms within the burst window.
    early: fingerprints that were
    cleared before anything said they were open, with the sequence number of that: a late opening is then known.
    """

    incidents: Mapping[str, Incident] = {}
    storm: Storm | None = None
    posts: tuple[float, ...] = ()
    storm_posts: tuple[float, ...] = ()
    early: Mapping[str, int] = {}


def digest(incidents: Iterable[Incident]) -> Digest:
    """Counts by cause, check and node over all findings of these incidents."""
    incidents = list(incidents)
    members = [member for incident in incidents for member in incident.shown()]
    return Digest(
        incidents=len(incidents),
        still_open=sum(not incident.over for incident in incidents),
        findings=len(members),
        by_cause=_ranked(member.cause or "no cause known" for member in members),
        by_check=_ranked(member.source for member in members),
        by_node=_ranked(member.node for member in members),
    )


def _ranked(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    counts = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    if len(counts) <= DIGEST_LINES:
        return tuple(counts)
    rest = counts[DIGEST_LINES - 1 :]
    return (*counts[: DIGEST_LINES - 1], (f"{len(rest)} others", sum(count for _, count in rest)))
