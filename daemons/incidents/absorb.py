"""Changes of findings become changes of incidents: late, repeated and out of order ones included."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from checks.base import Finding, Status, worst
from daemons.incidents.correlation import ALONE, Correlation, best
from daemons.incidents.grouping import JOB, family
from daemons.incidents.model import SAMPLES, Change, Incident, Member, Situation, State

_OPENING = frozenset({"opened", "worsened", "eased", "repeated"})
_CLEARING = "cleared"
_TROUBLES = frozenset({Status.WARN, Status.FAIL, Status.UNKNOWN})
_RANK = {Status.FAIL: 0, Status.UNKNOWN: 1, Status.WARN: 2}
# Clears that came before their opening are remembered for so many findings; the oldest are let go.
_EARLY = 10_000


@dataclass(slots=True)
class _Draft:
    """An incident while a batch of changes is applied to it; `members` is its own copy."""

    incident: Incident
    members: dict[str, Member] = field(init=False)
    samples: dict[str, Finding] = field(init=False)

    def __post_init__(self) -> None:
        self.members = dict(self.incident.members)
        self.samples = {finding.fingerprint: finding for finding in self.incident.samples}
        self._open = sum(member.open for member in self.members.values())

    _open: int = field(init=False, default=0)

    @property
    def over(self) -> bool:
        return self.incident.over

    def put(self, change: Change, is_open: bool) -> None:
        finding = change.finding
        before = self.members.get(finding.fingerprint)
        self._open += is_open - bool(before and before.open)
        self.members[finding.fingerprint] = _member(change, is_open, before)
        if is_open:
            self._sample(finding)
            if before is None:
                newest = max(self.incident.newest, _begun(finding, change))
                self.incident = msgspec.structs.replace(self.incident, newest=newest)
            if self.over:
                self._reopen()
        elif not self._open and not self.over:
            self._end(change)
        if change.at > self.incident.last_change:
            self.incident = msgspec.structs.replace(self.incident, last_change=change.at)

    def _sample(self, finding: Finding) -> None:
        """Keep the worst and first ones whole."""
        self.samples[finding.fingerprint] = finding
        if len(self.samples) > SAMPLES:
            self.samples = {f.fingerprint: f for f in sorted(self.samples.values(), key=_notable)[:SAMPLES]}

    def join(self, key: str, finding: Finding) -> None:
        """Take in a job and the node that explains it; what the node says is the cause."""
        cause = self.incident.cause if _is_job(family(finding)) else finding.cause
        self.incident = msgspec.structs.replace(self.incident, joined=(*self.incident.joined, key), cause=cause)

    def _reopen(self) -> None:
        self.incident = msgspec.structs.replace(
            self.incident,
            state=State.OPEN,
            resolved=0.0,
            flaps=self.incident.flaps + 1,
            who="",
            note="",
            ended="",
        )

    def _end(self, change: Change) -> None:
        finding = change.finding
        ended = finding.summary if finding.status is Status.OK else ""
        self.incident = msgspec.structs.replace(self.incident, state=State.RESOLVED, resolved=change.at, ended=ended)

    def finished(self) -> Incident:
        statuses = [member.status for member in self.members.values() if member.open]
        return msgspec.structs.replace(
            self.incident,
            members=self.members,
            samples=tuple(sorted(self.samples.values(), key=_notable)),
            severity=worst(statuses) if statuses else self.incident.severity,
        )

    def worsen(self, status: Status) -> None:
        """Within a batch the worst counts, also when it is over at its end."""
        if self.over or _RANK[status] < _RANK[self.incident.severity]:
            self.incident = msgspec.structs.replace(self.incident, severity=status)


def absorb(
    situation: Situation, changes: Iterable[Change], reopen_seconds: float, correlation: Correlation = ALONE
) -> Situation:
    """The incidents after these changes; what comes back within reopen_seconds goes on in its old incident."""
    changes = list(changes)
    if not changes:
        return situation
    book = _Book(situation, reopen_seconds, correlation)
    for change in changes:
        book.take(change)
    return book.closed()


class _Book:
    """The situation while a batch is applied: every incident is copied once, however many changes it gets."""

    def __init__(self, situation: Situation, reopen_seconds: float, correlation: Correlation) -> None:
        self._before = situation
        self._reopen_seconds = reopen_seconds
        self._correlation = correlation
        self._drafts: dict[str, _Draft] = {}
        self._early = dict(situation.early)
        self._by_key: dict[str, str] = {}
        self._by_fingerprint: dict[str, str] = {}
        self._by_node: dict[bool, dict[str, dict[str, None]]] = {True: {}, False: {}}  # of jobs, of everything else
        for incident in situation.incidents.values():  # in order of opening: the newest of a key stays
            self._by_key.update(dict.fromkeys((incident.key, *incident.joined), incident.id))
            self._by_fingerprint.update(dict.fromkeys(incident.members, incident.id))
            for member in incident.members.values():
                self._note_node(member.node, incident)

    def take(self, change: Change) -> None:
        finding = change.finding
        is_open = change.kind in _OPENING and finding.status in _TROUBLES
        if not is_open and change.kind != _CLEARING:
            return
        found = self._home(finding, change, is_open)
        if found is None:
            return
        if is_open:
            found.worsen(finding.status)
        found.put(change, is_open)
        self._by_fingerprint[finding.fingerprint] = found.incident.id
        self._note_node(finding.node, found.incident)

    def _note_node(self, node: str, incident: Incident) -> None:
        self._by_node[_is_job(incident.family)].setdefault(node, {})[incident.id] = None

    def _home(self, finding: Finding, change: Change, is_open: bool) -> _Draft | None:
        """The incident that this change belongs to; None when there is nothing to do, as with one that comes late."""
        fingerprint = finding.fingerprint
        known = self._by_fingerprint.get(fingerprint)
        if known is not None:
            draft = self._draft(known)
            member = draft.members[fingerprint]
            if change.seq <= member.seq or (not is_open and not member.open):
                return None
            if member.open or self._lasts(draft, change):
                return draft
        if change.seq <= self._early.get(fingerprint, -1):
            return None
        if not is_open:
            self._note_early(fingerprint, change.seq)
            return None
        key = self._correlation.key(finding)
        current = self._by_key.get(key)
        if current is not None and self._belongs(self._draft(current), finding, change):
            return self._draft(current)
        return self._explained(key, finding, change) or self._opened(key, change)

    def _belongs(self, draft: _Draft, finding: Finding, change: Change) -> bool:
        """What is shared by nodes must also begin together: a second fault of a switch is news."""
        incident = draft.incident
        shared = self._correlation.place(finding) and finding.node not in {m.node for m in draft.members.values()}
        if shared and abs(_begun(finding, change) - incident.newest) > self._correlation.together_seconds:
            return False
        return self._lasts(draft, change)

    def _explained(self, key: str, finding: Finding, change: Change) -> _Draft | None:
        """The incident of the node that a job died of, or of the job that died of this node."""
        begun, is_job = _begun(finding, change), _is_job(family(finding))
        found = best(
            finding,
            (
                (one.id, one.cause, one.newest)
                for one in self._on_node(finding.node, not is_job)
                if self._correlation.explains(finding, begun, one.cause, one.newest)
            ),
            begun,
        )
        if found is None:
            return None
        draft = self._draft(found)
        self._by_key[key] = found
        draft.join(key, finding)
        return draft

    def _on_node(self, node: str, is_job: bool) -> Iterator[Incident]:
        """Incidents of jobs, or of everything else, that go on or did lately and touch the node."""
        for found in self._by_node[is_job].get(node, ()):
            draft = self._drafts.get(found)
            yield draft.incident if draft else self._before.incidents[found]

    def _note_early(self, fingerprint: str, seq: int) -> None:
        self._early.pop(fingerprint, None)
        self._early[fingerprint] = seq
        if len(self._early) > _EARLY:
            del self._early[next(iter(self._early))]

    def _lasts(self, draft: _Draft, change: Change) -> bool:
        return not draft.over or change.at - draft.incident.resolved <= self._reopen_seconds

    def _opened(self, key: str, change: Change) -> _Draft:
        finding = change.finding
        incident = Incident(
            id=hashlib.sha256(f"{key}\0{change.seq}\0{change.at}".encode()).hexdigest()[:8],
            key=key,
            family=family(finding),
            cause=finding.cause,
            severity=finding.status,
            state=State.OPEN,
            opened=finding.first_seen or change.at,
            last_change=change.at,
            newest=_begun(finding, change),
        )
        self._by_key[key] = incident.id
        self._drafts[incident.id] = draft = _Draft(incident)
        return draft

    def _draft(self, incident: str) -> _Draft:
        if incident not in self._drafts:
            self._drafts[incident] = _Draft(self._before.incidents[incident])
        return self._drafts[incident]

    def closed(self) -> Situation:
        incidents: dict[str, Incident] = dict(self._before.incidents)
        incidents.update({key: draft.finished() for key, draft in self._drafts.items()})
        early: Mapping[str, int] = self._early
        return msgspec.structs.replace(self._before, incidents=incidents, early=early)


def _is_job(kind: str) -> bool:
    return kind.startswith(f"{JOB}/")


def _begun(finding: Finding, change: Change) -> float:
    return finding.first_seen or change.at


def _member(change: Change, is_open: bool, before: Member | None) -> Member:
    finding = change.finding
    status = finding.status if is_open else (before.status if before else finding.status)
    return Member(
        seq=change.seq,
        node=finding.node,
        component=finding.component,
        source=finding.source,
        cause=finding.cause or (before.cause if before else ""),
        status=status,
        open=is_open,
        count=max(finding.count, before.count if before else 1),
    )


def _notable(finding: Finding) -> tuple[int, float, str]:
    return (_RANK.get(finding.status, 3), finding.first_seen, finding.component)
