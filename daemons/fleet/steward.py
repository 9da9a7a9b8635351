"""Carries the policy out: looks at the scheduler, decides, acts, and writes down what was decided and done.

An action is written down as begun before it is taken, and as done after; a fleet that was killed in between takes it up
again at its next look. Draining twice is draining once, since a drain carries our reason.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from checks.base import Finding, Status
from checks.clock import Clock
from checks.runner import fingerprint
from daemons.engines.base import REASON_PREFIX, Engine, EngineError, EngineNode
from daemons.fleet import tables
from daemons.fleet.policy import Decision, Ours, PolicyConfig, PolicyState, Sick, Verb, View, decide, done
from daemons.fleet.proofs import passed
from daemons.fleet.store import OWN, NodeRow, Store
from daemons.incidents import Incident
from daemons.ledger.records import Kind

log = logging.getLogger("muster.fleet")

_STATE, _DOING, _SAID = "policy.state", "policy.doing", "policy.said"
# So many records of canaries are read for proofs: at one an hour, a week.
_RECORDS = 200
_JOB = "job/"
# A scheduler that restarts is back within so many seconds; one that is away for longer is told of.
_GRACE_SECONDS = 120.0


class Stewarding(msgspec.Struct, frozen=True, kw_only=True):
    """How the last look went. decisions: since the start, by verb and whether they were allowed."""

    at: float = 0.0
    nodes: tuple[EngineNode, ...] = ()
    state: PolicyState = PolicyState()
    trouble: str = ""
    decisions: Mapping[tuple[str, bool], int] = {}


class Steward:
    """One policy over one engine. `look` is called from one thread at a time; `last` may be read from any."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        config: PolicyConfig,
        clock: Clock,
        nodes: Callable[[], Sequence[NodeRow]],
        incidents: Callable[[], Sequence[Incident]],
    ) -> None:
        self._engine = engine
        self._store = store
        self.config = config
        self._clock = clock
        self._nodes = nodes
        self._incidents = incidents
        self._acting = threading.Lock()
        self._answered = clock.monotonic()
        self._failed: dict[str, str] = {}
        self.last = Stewarding()

    def look(self) -> str:
        """One look: a sentence of what was decided, "" for nothing new. Raises StoreAway."""
        try:
            with self._acting:
                return self._look()
        except EngineError as error:
            now = self._clock.now()
            said = "" if self.last.trouble == str(error) else f"policy: {error}"
            if self._clock.monotonic() - self._answered >= _GRACE_SECONDS:
                self._tell(_unanswered(self._engine.name, str(error), now), now)
            self.last = msgspec.structs.replace(self.last, at=now, trouble=str(error))
            return said

    def _look(self) -> str:
        nodes = tuple(self._engine.nodes())
        now = self._clock.now()
        self._answered = self._clock.monotonic()
        self._tell(_unanswered(self._engine.name, "", now), now)
        state = adopted(self._resumed(), nodes, now)
        view = View(
            nodes=nodes,
            sick=tuple(sick(self._store.open(status=str(Status.FAIL)), self._incidents())),
            passed=passed(self._nodes(), self._store.newest(tables.canaries, _RECORDS)),
        )
        state, decisions = decide(state, view, now, self.config)
        said, fresh = news(self._said(), decisions)
        lines = [_line(one) for one in fresh if not one.allowed or _event(one)]
        self._keep({_STATE: _text(state), _SAID: _text(said)}, lines)
        for decision in decisions:
            if decision.allowed and not _event(decision):
                state = self._carry_out(state, decision)
        self._tell(_breaker(state, now), now)
        self._count(fresh)
        self.last = msgspec.structs.replace(self.last, at=now, nodes=nodes, state=state, trouble="")
        return "; ".join(sentence(one) for one in fresh)

    def _keep(self, values: Mapping[str, str], lines: list[dict[str, object]]) -> None:
        """Write what is not there yet: most looks decide nothing new."""
        if lines or any(self._store.setting(name) != value for name, value in values.items()):
            self._store.keep_all(values, lines)

    def by_hand(self, node: str, who: str) -> str:
        """A person drains a node (a button): through the same engine, with the same audit line; what was done."""
        now = self._clock.now()
        decision = Decision(
            verb=Verb.DRAIN, node=node, allowed=True, why=f"asked for by {who}", at=now, cause="by hand"
        )
        with self._acting:
            self._carry_out(self._state(), decision)
        return f"{node} is drained"

    def _resumed(self) -> PolicyState:
        """The state, after an action that a killed fleet had begun was taken to its end."""
        state = self._state()
        if begun := self._store.setting(_DOING):
            decision = msgspec.json.decode(begun, type=Decision)
            log.warning("policy: takes up again what was begun: %s", sentence(decision))
            state = self._carry_out(state, decision)
        return state

    def _carry_out(self, state: PolicyState, decision: Decision) -> PolicyState:
        self._store.keep(_DOING, _text(decision))
        try:
            decision = self._act(decision)
        except EngineError as error:
            # Not done: the next look decides anew. It is in the audit log, once, as an attempt that failed.
            failed = msgspec.structs.replace(decision, allowed=False, why=f"not done: {error}")
            again = self._failed.get(decision.node) == failed.why
            self._store.keep_all({_DOING: ""}, [] if again else [_line(failed)])
            self._failed[decision.node] = failed.why
            if not again:
                log.error("policy: %s", sentence(failed))
            return state
        self._failed.pop(decision.node, None)
        state = done(state, decision)
        self._store.keep_all({_DOING: "", _STATE: _text(state)}, [_line(decision)])
        return state

    def _act(self, decision: Decision) -> Decision:
        """Do it; the decision with what came of it. Raises EngineError when nothing was done."""
        if decision.verb is Verb.UNDRAIN:
            self._engine.undrain(decision.node)
            return decision
        self._engine.drain(decision.node, reason(decision))
        if not decision.requeue:
            return decision
        told = [self._requeued(job.id, decision.node) for job in self._engine.jobs() if decision.node in job.nodes]
        return msgspec.structs.replace(decision, why="; ".join([decision.why, *told]))

    def _requeued(self, job: str, node: str) -> str:
        """One job that cannot go back into the queue does not keep the node open."""
        try:
            self._engine.requeue(job, exclude=(node,))
        except EngineError as error:
            return f"job {job} could not be put back: {error}"
        return f"job {job} is back in the queue"

    def _state(self) -> PolicyState:
        kept = self._store.setting(_STATE)
        return msgspec.json.decode(kept, type=PolicyState) if kept else PolicyState()

    def _said(self) -> dict[str, str]:
        kept = self._store.setting(_SAID)
        return msgspec.json.decode(kept, type=dict[str, str]) if kept else {}

    def _tell(self, finding: Finding, now: float) -> None:
        """A trouble of the policy's own is a finding like any other: opened once, cleared once."""
        is_open = any(one.fingerprint == finding.fingerprint for one in self._store.open(OWN))
        if (finding.status is not Status.OK) != is_open:
            self._store.add(OWN, [(Kind.CLEARED if is_open else Kind.OPENED, finding)], now)

    def _count(self, fresh: Iterable[Decision]) -> None:
        counts = dict(self.last.decisions)
        for one in fresh:
            key = (str(one.verb), one.allowed)
            counts[key] = counts.get(key, 0) + 1
        self.last = msgspec.structs.replace(self.last, decisions=counts)


def sick(failures: Iterable[Finding], incidents: Iterable[Incident]) -> list[Sick]:
    """The nodes with open failures of their own; what a job says of its node is not the node's own word."""
    by_fingerprint = {mark: incident.id for incident in incidents for mark in incident.members}
    return [
        Sick(
            node=finding.node,
            cause=finding.cause,
            status=finding.status,
            incident=by_fingerprint.get(finding.fingerprint, ""),
            since=finding.first_seen,
        )
        for finding in failures
        if not finding.component.startswith(_JOB)
    ]


def adopted(state: PolicyState, nodes: Iterable[EngineNode], now: float) -> PolicyState:
    """The state with every node that carries our reason: one drained before the store was restored is still ours.

    Its proofs count from now on: what it passed before is not known to come after the drain.
    """
    for node in nodes:
        if node.drained_by_us and node.name not in state.ours:
            words = node.reason.removeprefix(REASON_PREFIX).split()
            ours = Ours(cause=words[0].rstrip(",") if words else "", incident="", at=now)
            state = msgspec.structs.replace(state, ours={**state.ours, node.name: ours})
    return state


def news(said: Mapping[str, str], decisions: Sequence[Decision]) -> tuple[dict[str, str], list[Decision]]:
    """What was said by now, and the decisions that were not said before: each once for as long as it holds.

    Numbers in the reasons (ages, counts) do not make it another decision.
    """
    now: dict[str, str] = {}
    fresh = []
    for one in decisions:
        key = f"{one.verb} {one.node}"
        now[key] = text = f"{one.allowed} {one.cause} {''.join(c for c in one.why if not c.isdigit())}"
        if said.get(key) != text or one.allowed:
            fresh.append(one)
    return now, fresh


def reason(decision: Decision) -> str:
    """What stands beside the node in the scheduler."""
    incident = f", incident {decision.incident}" if decision.incident else ""
    return f"{REASON_PREFIX}{decision.cause}{incident}"


def sentence(decision: Decision) -> str:
    """A decision as people read it."""
    if _event(decision):
        return f"circuit breaker {'opens' if decision.verb is Verb.TRIP else 'closes'}: {decision.why}"
    verb = f"{decision.verb} {decision.node}"
    return f"{verb}: {decision.why}" if decision.allowed else f"would {verb} for {decision.cause}, but: {decision.why}"


def _event(decision: Decision) -> bool:
    return decision.verb in (Verb.TRIP, Verb.RESET)


def _line(decision: Decision) -> dict[str, object]:
    return {"at": decision.at, "node": decision.node, "body": msgspec.json.encode(decision)}


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _own(component: str, kind: str, trouble: str, advice: str, status: Status, now: float) -> Finding:
    found = Finding(
        component=component,
        kind=kind,
        status=status if trouble else Status.OK,
        summary=trouble or "well again",
        advice=advice if trouble else "",
        node=OWN,
        source=OWN,
        first_seen=now,
        last_seen=now,
    )
    return msgspec.structs.replace(found, fingerprint=fingerprint(OWN, OWN, found))


def _unanswered(engine: str, trouble: str, now: float) -> Finding:
    advice = "see that the scheduler runs and that this machine may ask it; until then no node is drained or opened"
    return _own(f"engine/{engine}", "no_answer", trouble, advice, Status.UNKNOWN, now)


def _breaker(state: PolicyState, now: float) -> Finding:
    trouble = (
        f"open: {len(state.due)} nodes fell due for a drain together; none is drained now" if state.tripped else ""
    )
    advice = "look for what they share (a switch, a driver roll-out); `muster fleet audit` shows the decisions"
    return _own("policy/breaker", "tripped", trouble, advice, Status.WARN, now)
