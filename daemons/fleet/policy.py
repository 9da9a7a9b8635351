"""What may be done about a sick node: pure decisions that know their budget, and undo only what they did.

The state and the cluster as it is now go in; the next state and decisions come out, refused ones included ("would have
drained, but"), each with its reason: the audit log is these decisions. Nothing here touches a node.

Invariants, each held by a test over random histories: with `enabled = false` nothing is allowed; the drains allowed
within any window never exceed the budget; no drain takes the last healthy spare of a partition; while the breaker is
open nothing is drained; an undrain is allowed only for a node that this policy drained, whose cause is over and which
has passed every proof since.
"""

import enum
import math
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from checks.base import Status
from daemons.engines.base import EngineNode, NodeState
from daemons.section import Count, Positive, Section

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Act(enum.StrEnum):
    """What a cause calls for. Slurm's drain lets running jobs end: `drain_now` also puts them back into the queue."""

    NONE = "none"
    TELL = "tell"
    DRAIN_AFTER_JOB = "drain_after_job"
    DRAIN_NOW = "drain_now"


# Only what a job cannot survive or would be corrupted by takes a node away at once; whatever the job's own code can
# have caused (13, 31, out of memory) never does. Sources: the actions of NVIDIA's XID catalogue behind each cause.
DEFAULT_RULES: Mapping[str, Act] = {
    "gpu.lost": Act.DRAIN_NOW,
    "gpu.memory_ecc": Act.DRAIN_AFTER_JOB,
    "gpu.nvlink": Act.DRAIN_AFTER_JOB,
    "gpu.driver": Act.DRAIN_AFTER_JOB,
    "gpu.thermal_power": Act.TELL,
    "net.infiniband": Act.DRAIN_AFTER_JOB,
    "storage.filesystem": Act.TELL,
    "host.kernel": Act.DRAIN_AFTER_JOB,
}


class PolicyConfig(Section, frozen=True, kw_only=True):
    """[fleet.policy] enabled: false only says what would be done. rules: cause -> action, over the defaults.

    budget_share: of the cluster's nodes that may be drained by muster within window_hours, at least one node.
    spare: healthy nodes that every partition keeps. breaker_nodes, breaker_minutes: so many nodes newly due for a drain
    within so long are one fault of something they share (a switch, a driver roll-out): nothing is drained then until
    breaker_quiet_minutes without another, and people are told.
    proofs: what a node must have passed since before it is opened again.
    """

    enabled: bool = False
    rules: Mapping[str, Act] = {}
    budget_share: Share = 0.05
    window_hours: Positive = 24.0
    spare: Count = 1
    breaker_nodes: Count = 5
    breaker_minutes: Positive = 10.0
    breaker_quiet_minutes: Positive = 30.0
    proofs: tuple[str, ...] = ("scan", "pairs", "canary")


class Sick(msgspec.Struct, frozen=True, kw_only=True):
    """A node with an open failure. incident: its id; since: epoch seconds."""

    node: str
    cause: str
    status: Status
    incident: str = ""
    since: float = 0.0


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """A node that this policy drained, and why. at: epoch seconds."""

    cause: str
    incident: str
    at: float


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy remembers.

    ours: nodes that it drained and has not opened. drains: times of all drains within the window, undone ones
    included: a node that goes in circles spends budget every time. due: node -> when it was first due for a drain.
    tripped: when the breaker opened, 0 while closed.
    """

    ours: Mapping[str, Ours] = {}
    drains: tuple[float, ...] = ()
    due: Mapping[str, float] = {}
    tripped: float = 0.0


class Verb(enum.StrEnum):
    """What a decision is about."""

    DRAIN = "drain"
    UNDRAIN = "undrain"
    TRIP = "trip"
    RESET = "reset"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit log. allowed: whether it is to be carried out now. why: in words, with the numbers."""

    verb: Verb
    node: str
    allowed: bool
    why: str
    at: float
    cause: str = ""
    incident: str = ""
    requeue: bool = False


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster now. sick: open failures. passed: node -> proof -> when it was last passed (epoch seconds)."""

    nodes: tuple[EngineNode, ...]
    sick: tuple[Sick, ...] = ()
    passed: Mapping[str, Mapping[str, float]] = {}


def action(cause: str, status: Status, config: PolicyConfig) -> Act:
    """What this trouble calls for; only a failure ever takes a node away."""
    act = config.rules.get(cause, DEFAULT_RULES.get(cause, Act.TELL))
    if status is not Status.FAIL and act in (Act.DRAIN_AFTER_JOB, Act.DRAIN_NOW):
        return Act.TELL
    return act


def budget(nodes: int, config: PolicyConfig) -> int:
    """How many drains a window allows; one at least, or a small cluster could never be helped."""
    return max(1, math.floor(nodes * config.budget_share))


def decide(state: PolicyState, view: View, now: float, config: PolicyConfig) -> tuple[PolicyState, list[Decision]]:
    """The next state and what is to be done, in order. Carry the allowed ones out, then report them with `done`."""
    worst = _worst(view.sick, config)
    due = {node: state.due.get(node, now) for node in worst}
    state = msgspec.structs.replace(
        state, due=due, drains=tuple(at for at in state.drains if now - at < config.window_hours * 3600)
    )
    state, decisions = _breaker(state, now, config)
    decisions += _undrains(state, view, worst, now, config)
    spent = len(state.drains)
    healthy = _healthy(view, worst)
    for sick, act in sorted(worst.values(), key=lambda item: (item[1] is not Act.DRAIN_NOW, due[item[0].node])):
        node = next((found for found in view.nodes if found.name == sick.node), None)
        refusal = _refusal(state, node, spent, healthy, view, config)
        if node is None or refusal is None:
            continue
        allowed = not refusal
        why = f"{sick.cause} open since {now - sick.since:.0f} s" if allowed else refusal
        decisions.append(
            Decision(
                verb=Verb.DRAIN,
                node=sick.node,
                allowed=allowed,
                why=why,
                at=now,
                cause=sick.cause,
                incident=sick.incident,
                requeue=act is Act.DRAIN_NOW,
            )
        )
        spent += allowed
    return state, decisions


def done(state: PolicyState, decision: Decision) -> PolicyState:
    """The state once an allowed decision was carried out."""
    if decision.verb is Verb.DRAIN:
        ours = Ours(cause=decision.cause, incident=decision.incident, at=decision.at)
        return msgspec.structs.replace(
            state, ours={**state.ours, decision.node: ours}, drains=(*state.drains, decision.at)
        )
    if decision.verb is Verb.UNDRAIN:
        return msgspec.structs.replace(state, ours={n: o for n, o in state.ours.items() if n != decision.node})
    return state


def _worst(sick: Iterable[Sick], config: PolicyConfig) -> dict[str, tuple[Sick, Act]]:
    """Nodes that call for a drain, each with what calls loudest."""
    found: dict[str, tuple[Sick, Act]] = {}
    for one in sorted(sick, key=lambda one: one.since):
        act = action(one.cause, one.status, config)
        before = found.get(one.node)
        louder = before is None or (act is Act.DRAIN_NOW and before[1] is not Act.DRAIN_NOW)
        if act in (Act.DRAIN_AFTER_JOB, Act.DRAIN_NOW) and louder:
            found[one.node] = (one, act)
    return found


def _breaker(state: PolicyState, now: float, config: PolicyConfig) -> tuple[PolicyState, list[Decision]]:
    fresh = [node for node, since in state.due.items() if now - since <= config.breaker_minutes * 60]
    if not state.tripped and len(fresh) >= config.breaker_nodes:
        why = (
            f"{len(fresh)} nodes fell due for a drain within {config.breaker_minutes:g} min: that is one fault of"
            " something they share; no node is drained until it is quiet"
        )
        return msgspec.structs.replace(state, tripped=now), [_event(Verb.TRIP, why, now)]
    newest = max(state.due.values(), default=state.tripped)
    if state.tripped and now - max(newest, state.tripped) >= config.breaker_quiet_minutes * 60:
        why = f"no node fell due for a drain for {config.breaker_quiet_minutes:g} min"
        return msgspec.structs.replace(state, tripped=0.0), [_event(Verb.RESET, why, now)]
    return state, []


def _event(verb: Verb, why: str, now: float) -> Decision:
    return Decision(verb=verb, node="", allowed=True, why=why, at=now)


def _refusal(
    state: PolicyState, node: EngineNode | None, spent: int, healthy: set[str], view: View, config: PolicyConfig
) -> str | None:
    """Why the node is not drained now; "" when it is to be drained, None when there is nothing to decide."""
    if node is None or node.name in state.ours or node.state in (NodeState.DRAINED, NodeState.DRAINING):
        return None
    if state.tripped:
        return "the circuit breaker is open"
    allowed = budget(len(view.nodes), config)
    if spent >= allowed:
        return f"budget spent: {spent} of {allowed} drains in {config.window_hours:g} h"
    for partition in node.partitions:
        left = {n.name for n in view.nodes if partition in n.partitions and n.name in healthy} - {node.name}
        if len(left) < config.spare:
            return f"partition {partition} would have {len(left)} healthy nodes left, it keeps {config.spare}"
    return "" if config.enabled else "observe only (fleet.policy.enabled is false)"


def _healthy(view: View, worst: Mapping[str, object]) -> set[str]:
    return {n.name for n in view.nodes if n.state in (NodeState.IDLE, NodeState.BUSY) and n.name not in worst}


def _undrains(
    state: PolicyState, view: View, worst: Mapping[str, object], now: float, config: PolicyConfig
) -> list[Decision]:
    states = {node.name: node for node in view.nodes}
    found = []
    for name, ours in sorted(state.ours.items()):
        node = states.get(name)
        if node is None or name in worst:
            continue
        if node.state not in (NodeState.DRAINED, NodeState.DRAINING):
            found.append(_undrain(name, ours, "somebody opened it already", now, allowed=True))
            continue
        if not node.drained_by_us:
            found.append(_undrain(name, ours, f"somebody else holds it now: {node.reason}", now, allowed=False))
            continue
        lacking = [proof for proof in config.proofs if view.passed.get(name, {}).get(proof, 0.0) <= ours.at]
        if not lacking:
            why = f"{ours.cause} is over and it passed {', '.join(config.proofs) or 'nothing, as configured'}"
            allowed = config.enabled
            found.append(_undrain(name, ours, why if allowed else "observe only", now, allowed=allowed))
    return found


def _undrain(name: str, ours: Ours, why: str, now: float, *, allowed: bool) -> Decision:
    return Decision(
        verb=Verb.UNDRAIN, node=name, allowed=allowed, why=why, at=now, cause=ours.cause, incident=ours.incident
    )
