"""From what a check saw to what is believed: when a trouble is opened, told to be worse or better, and cleared.

Pure: rows of the ledger, an outcome and the moment in; the next entry of the ledger out. Debounce lives in the ledger
too (pending rows), so that a restart of the agent neither forgets an event that it has read nor starts the count anew.
Waiting is measured in monotonic time: a step of the wall clock opens and clears nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from checks.base import Check, CheckConfig, ClearRule, Finding, Status, worse
from checks.runner import Outcome
from daemons.ledger.records import Entry, FindingState, Kind, Tracked

# An event that keeps coming is counted each time and written to the log of changes at most so often.
REPEAT_SECONDS = 60.0
_TROUBLES = (Status.WARN, Status.FAIL, Status.UNKNOWN)
# Components that the runner speaks of: they are states and end when the check looks again, whatever the check's rule.
_OF_THE_RUNNER = ("check/", "door/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """monotonic: seconds that never go back within the boot. uptime: seconds since boot."""

    monotonic: float
    uptime: float
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What a source declared of its findings (see CheckConfig and Check)."""

    consecutive: int = 1
    boot_grace: float = 0.0
    unknown_grace: float = 0.0
    clear_after: int = 1
    quiet_seconds: float = 3600.0
    clear: ClearRule = ClearRule.ACKNOWLEDGED
    events: bool = True
    delivered: bool = False

    def lasting(self, finding: Finding) -> bool:
        """Whether it is a state, which a run that looks either sees or does not."""
        return not self.events or finding.component.startswith(_OF_THE_RUNNER)

    def rule(self, finding: Finding) -> ClearRule:
        """What ends this finding."""
        if finding.clear is not None:
            return finding.clear
        return ClearRule.CLEAN_RUNS if finding.component.startswith(_OF_THE_RUNNER) else self.clear


# Findings that others deliver (`muster run`): believed at once, until somebody or a later `ok` ends them.
DELIVERED = Habits(delivered=True)


def habits(check: Check, config: CheckConfig) -> Habits:
    """What a check declared, as it is configured."""
    return Habits(
        consecutive=config.consecutive,
        boot_grace=config.boot_grace,
        unknown_grace=config.unknown_grace,
        clear_after=config.clear_after,
        quiet_seconds=config.quiet_seconds,
        clear=check.clear,
        events=check.events,
    )


@dataclass(slots=True)
class _Draft:
    """The entry while it is written."""

    put: dict[str, Tracked] = field(default_factory=dict)
    forget: set[str] = field(default_factory=set)
    changes: list[tuple[Kind, Finding]] = field(default_factory=list)

    def add(self, after: Tracked, kind: Kind | None) -> None:
        self.put[after.finding.fingerprint] = after
        if kind is not None:
            self.changes.append((kind, after.finding))

    def entry(self) -> Entry:
        return Entry(put=self.put, forget=frozenset(self.forget), changes=tuple(self.changes))


def judge(tracked: Mapping[str, Tracked], outcome: Outcome, rules: Habits, at: Moment) -> Entry:
    """One run of a check. tracked: the rows of this check, by fingerprint."""
    draft = _Draft()
    seen = _troubles(outcome.findings)
    for fingerprint, (finding, times) in seen.items():
        draft.add(*_saw(tracked.get(fingerprint), finding, times, rules, at))
    for fingerprint, item in tracked.items():
        if fingerprint not in seen:
            _missed(draft, item, outcome, rules, at)
    return draft.entry()


def deliver(tracked: Mapping[str, Tracked], findings: Iterable[Finding], at: Moment) -> Entry:
    """Findings of a source that is no check. tracked: the rows of that source.

    A trouble is opened at once; an `ok` clears what is open on its component: of its kind, or all when it names none.
    """
    draft = _Draft()
    for finding in findings:
        rows = {**tracked, **draft.put}
        if finding.status in _TROUBLES:
            draft.add(*_saw(_live(rows.get(finding.fingerprint)), finding, finding.count, DELIVERED, at))
        elif finding.status is Status.OK:
            for item in rows.values():
                if item.is_open and _cures(finding, item.finding):
                    draft.add(*_clear(item, finding, at))
    return draft.entry()


def pass_time(tracked: Mapping[str, Tracked], rules: Habits, at: Moment) -> Entry:
    """What time alone decides: a grace that is over, repetitions not yet logged, a delivered finding gone quiet."""
    draft = _Draft()
    for item in tracked.values():
        if rules.delivered and item.is_open and _outlived(item, rules, at):
            draft.add(*_clear(item, None, at))
            continue
        after, kind = _settle(item, item.finding.status, rules, at)
        if kind is not None:
            draft.add(after, kind)
    return draft.entry()


def acknowledge(items: Iterable[Tracked]) -> Entry:
    """Somebody has seen them."""
    draft = _Draft()
    for item in items:
        if item.state is FindingState.OPEN:
            draft.add(msgspec.structs.replace(item, state=FindingState.ACKNOWLEDGED), Kind.ACKNOWLEDGED)
    return draft.entry()


def resolve(items: Iterable[Tracked], summary: str, at: Moment) -> Entry:
    """Somebody ends them, whatever their rule; what is still there will be opened again. summary: who and why."""
    draft = _Draft()
    for item in items:
        if item.is_open:
            said = msgspec.structs.replace(item.finding, status=Status.SKIPPED, summary=summary)
            draft.add(*_clear(item, said, at))
        else:
            draft.forget.add(item.finding.fingerprint)
    return draft.entry()


def _troubles(findings: Iterable[Finding]) -> dict[str, tuple[Finding, int]]:
    """Each trouble once, at its worst, with how often it is in this run."""
    found: dict[str, tuple[Finding, int]] = {}
    for finding in findings:
        if finding.status not in _TROUBLES:
            continue
        before, times = found.get(finding.fingerprint, (finding, 0))
        worst = before if worse(before.status, finding.status) else finding
        found[finding.fingerprint] = (worst, times + finding.count)
    return found


def _saw(item: Tracked | None, finding: Finding, times: int, rules: Habits, at: Moment) -> tuple[Tracked, Kind | None]:
    lasting = rules.lasting(finding)
    if item is None:
        fresh = Tracked(
            finding=msgspec.structs.replace(finding, count=1 if lasting else times),
            state=FindingState.PENDING,
            clear=rules.rule(finding),
            boot_id=at.boot_id,
            since=at.monotonic,
            seen=at.monotonic,
        )
        return _settle(fresh, finding.status, rules, at)
    return _settle(_again(item, finding, 0 if lasting else times, lasting, at), item.finding.status, rules, at)


def _again(item: Tracked, finding: Finding, times: int, lasting: bool, at: Moment) -> Tracked:
    first, rebooted = item.finding.first_seen, item.boot_id != at.boot_id
    now = msgspec.structs.replace(
        finding, first_seen=first, last_seen=max(first, finding.last_seen), count=item.finding.count + times
    )
    return msgspec.structs.replace(
        item,
        finding=now,
        # A state that was only pending before the reboot begins anew: the boot has its own grace.
        runs=1 if rebooted and lasting else item.runs + 1,
        clean=0,
        since=at.monotonic if rebooted else item.since,
        seen=at.monotonic,
        logged_at=0.0 if rebooted else item.logged_at,
        boot_id=at.boot_id,
    )


def _settle(item: Tracked, before: Status, rules: Habits, at: Moment) -> tuple[Tracked, Kind | None]:
    """What there is to say of it now. before: its status when something was last said."""
    kind = _news(item, before, rules, at)
    if kind is None:
        return item, None
    # An acknowledgement covers what was known then: what has become worse is open again.
    state = FindingState.OPEN if kind in (Kind.OPENED, Kind.WORSENED) else item.state
    after = msgspec.structs.replace(
        item, state=state, logged_at=at.monotonic, logged_count=item.finding.count, boot_id=at.boot_id
    )
    return after, kind


def _news(item: Tracked, before: Status, rules: Habits, at: Moment) -> Kind | None:
    if not item.is_open:
        return Kind.OPENED if _due(item, rules, at) else None
    status = item.finding.status
    if status is not before:
        return Kind.WORSENED if worse(status, before) else Kind.EASED
    repeats = item.finding.count > item.logged_count
    return Kind.REPEATED if repeats and _elapsed(item, item.logged_at, at) >= REPEAT_SECONDS else None


def _due(item: Tracked, rules: Habits, at: Moment) -> bool:
    """Whether a pending finding is to be believed."""
    if at.uptime < rules.boot_grace:
        return False
    if item.finding.status is Status.UNKNOWN:
        return _elapsed(item, item.since, at) >= rules.unknown_grace
    return item.runs >= rules.consecutive


def _elapsed(item: Tracked, since: float, at: Moment) -> float:
    """Seconds since a moment of this boot, or at least since boot when it was before that."""
    if item.boot_id == at.boot_id and since <= at.monotonic:
        return at.monotonic - since
    return at.uptime


def _missed(draft: _Draft, item: Tracked, outcome: Outcome, rules: Habits, at: Moment) -> None:
    """A run did not see it: that means something only when the run looked where it was."""
    lasting = rules.lasting(item.finding)
    well = _found_well(item.finding, outcome) if lasting else outcome.looked
    if not item.is_open:
        quiet = _elapsed(item, item.seen, at) >= rules.quiet_seconds
        if (lasting and (outcome.looked or well)) or (not lasting and quiet):
            draft.forget.add(item.finding.fingerprint)
        return
    if not well:
        return
    clean = item.clean + 1
    if _ended(item, clean, rules, at):
        draft.add(*_clear(item, _ok(outcome, item.finding.component), at))
    elif item.clear is ClearRule.CLEAN_RUNS:
        draft.add(msgspec.structs.replace(item, clean=clean, runs=0), None)


def _found_well(finding: Finding, outcome: Outcome) -> bool:
    """A component that is merely absent is not well."""
    if finding.component.startswith(_OF_THE_RUNNER):
        return outcome.looked
    return finding.component in outcome.seen_well


def _ended(item: Tracked, clean: int, rules: Habits, at: Moment) -> bool:
    if item.clear is ClearRule.CLEAN_RUNS:
        return clean >= rules.clear_after
    return _outlived(item, rules, at)


def _outlived(item: Tracked, rules: Habits, at: Moment) -> bool:
    if item.clear is ClearRule.REBOOT:
        return bool(at.boot_id) and item.finding.boot_id != at.boot_id
    return item.clear is ClearRule.QUIET and _elapsed(item, item.seen, at) >= rules.quiet_seconds


def _clear(item: Tracked, said: Finding | None, at: Moment) -> tuple[Tracked, Kind]:
    """The row as it ends; its finding says how it is now, when something said so."""
    finding = item.finding
    if said is not None:
        finding = msgspec.structs.replace(finding, status=said.status, summary=said.summary, values=said.values)
    after = msgspec.structs.replace(item, finding=finding, state=FindingState.CLEARED, seen=at.monotonic)
    return after, Kind.CLEARED


def _ok(outcome: Outcome, component: str) -> Finding | None:
    return next((f for f in outcome.findings if f.component == component and f.status is Status.OK), None)


def _cures(ok: Finding, trouble: Finding) -> bool:
    return ok.component == trouble.component and ok.kind in ("", trouble.kind)


def _live(item: Tracked | None) -> Tracked | None:
    return None if item is None or item.state is FindingState.CLEARED else item
