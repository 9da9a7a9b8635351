"""Drain policy: every transition, and its invariants over random histories."""

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.base import Status
from daemons.engines.base import EngineNode, NodeState
from daemons.fleet.policy import (
    Act,
    Decision,
    PolicyConfig,
    PolicyState,
    Sick,
    Verb,
    View,
    action,
    budget,
    decide,
    done,
)

ON = PolicyConfig(enabled=True, budget_share=0.2)
NOW = 1_700_000_000.0
PROVEN = {"scan": NOW + 50, "pairs": NOW + 60, "canary": NOW + 70}


def cluster(size: int = 10, **states: NodeState | str) -> tuple[EngineNode, ...]:
    found = []
    for index in range(1, size + 1):
        told = states.get(f"n{index}", NodeState.IDLE)
        state = told if isinstance(told, NodeState) else NodeState.DRAINED
        reason = "" if isinstance(told, NodeState) else told
        found.append(EngineNode(name=f"n{index}", state=state, partitions=("main",), reason=reason))
    return tuple(found)


def sick(node: str, cause: str = "gpu.lost", since: float = NOW - 40, status: Status = Status.FAIL) -> Sick:
    return Sick(node=node, cause=cause, status=status, incident=f"i-{node}", since=since)


def view(*troubles: Sick, passed: Mapping[str, Mapping[str, float]] | None = None, **states: NodeState | str) -> View:
    return seen(troubles, passed or {}, states)


def seen(
    troubles: Iterable[Sick], passed: Mapping[str, Mapping[str, float]], states: Mapping[str, NodeState | str]
) -> View:
    return View(nodes=cluster(10, **states), sick=tuple(troubles), passed=passed)


def drained(node: str = "n3") -> PolicyState:
    state, (decision,) = decide(PolicyState(), view(sick(node)), NOW, ON)
    return done(state, decision)


def test_a_lost_gpu_drains_its_node_and_puts_its_jobs_back() -> None:
    _, decisions = decide(PolicyState(), view(sick("n3")), NOW, ON)
    assert decisions == [
        Decision(
            verb=Verb.DRAIN, node="n3", allowed=True, why="gpu.lost open since 40 s", at=NOW, cause="gpu.lost",
            incident="i-n3", requeue=True,
        )
    ]  # fmt: skip


def test_until_it_is_enabled_it_only_says_what_it_would_do() -> None:
    _, (decision,) = decide(PolicyState(), view(sick("n3")), NOW, PolicyConfig())
    assert (decision.allowed, decision.why) == (False, "observe only (fleet.policy.enabled is false)")


def test_a_drained_node_is_not_drained_again() -> None:
    state = drained()
    assert decide(state, view(sick("n3"), n3="muster: gpu.lost"), NOW + 9, ON)[1] == []
    assert decide(state, view(sick("n3")), NOW + 9, ON)[1] == []  # the engine has not caught up yet


def test_what_somebody_else_drained_is_left_alone_for_ever() -> None:
    state, decisions = decide(PolicyState(), view(sick("n3"), n3="bad fan"), NOW, ON)
    assert decisions == []
    _, decisions = decide(state, view(n3="bad fan", passed={"n3": PROVEN}), NOW + 99, ON)
    assert decisions == []


@pytest.mark.parametrize(
    ("cause", "status", "act"),
    [
        ("gpu.lost", Status.FAIL, Act.DRAIN_NOW),
        ("gpu.lost", Status.WARN, Act.TELL),
        ("gpu.lost", Status.UNKNOWN, Act.TELL),
        ("net.infiniband", Status.FAIL, Act.DRAIN_AFTER_JOB),
        ("program.python", Status.FAIL, Act.TELL),
        ("gpu.compute_fault", Status.FAIL, Act.TELL),
        ("", Status.UNKNOWN, Act.TELL),
    ],
)
def test_only_failures_of_hardware_take_a_node_away(cause: str, status: Status, act: Act) -> None:
    assert action(cause, status, ON) is act


def test_rules_of_the_configuration_come_first() -> None:
    config = PolicyConfig(enabled=True, rules={"gpu.lost": Act.TELL, "gpu.thermal_power": Act.DRAIN_NOW})
    assert decide(PolicyState(), view(sick("n1")), NOW, config)[1] == []
    assert [d.node for d in decide(PolicyState(), view(sick("n1", "gpu.thermal_power")), NOW, config)[1]] == ["n1"]


def test_the_budget_is_kept_and_what_cannot_wait_goes_first() -> None:
    troubles = [sick("n1", "net.infiniband"), sick("n2", "net.infiniband"), sick("n3")]
    _, decisions = decide(PolicyState(), view(*troubles), NOW, ON)
    assert [(d.node, d.allowed) for d in decisions] == [("n3", True), ("n1", True), ("n2", False)]
    assert decisions[2].why == "budget spent: 2 of 2 drains in 24 h"


def test_a_window_later_the_budget_is_there_again() -> None:
    state = PolicyState(drains=(NOW, NOW))
    assert [d.allowed for d in decide(state, view(sick("n1")), NOW + 86_399, ON)[1]] == [False]
    assert [d.allowed for d in decide(state, view(sick("n1")), NOW + 86_400, ON)[1]] == [True]


def test_a_small_cluster_may_lose_one_node() -> None:
    assert (budget(1, ON), budget(4, ON), budget(10, ON), budget(1000, PolicyConfig())) == (1, 1, 2, 50)


def test_the_last_healthy_node_of_a_partition_stays() -> None:
    down = {f"n{index}": NodeState.DOWN for index in range(2, 11)}
    _, (decision,) = decide(PolicyState(), seen([sick("n1")], {}, down), NOW, ON)
    assert (decision.allowed, decision.why) == (False, "partition main would have 0 healthy nodes left, it keeps 1")


def test_many_at_once_open_the_breaker_and_nothing_is_drained_until_it_is_quiet() -> None:
    many = [sick(f"n{index}", "net.infiniband") for index in range(1, 6)]
    state, decisions = decide(PolicyState(), view(*many), NOW, ON)
    assert [d.verb for d in decisions] == [Verb.TRIP] + [Verb.DRAIN] * 5
    assert {d.why for d in decisions[1:]} == {"the circuit breaker is open"}
    assert not any(d.allowed for d in decisions[1:])
    state, decisions = decide(state, view(*many), NOW + 1799, ON)
    assert Verb.RESET not in [d.verb for d in decisions]
    state, decisions = decide(state, view(*many), NOW + 1800, ON)
    assert [(d.verb, d.allowed) for d in decisions[:3]] == [(Verb.RESET, True), (Verb.DRAIN, True), (Verb.DRAIN, True)]


def test_slow_trickle_does_not_open_the_breaker() -> None:
    state = PolicyState()
    troubles: list[Sick] = []
    for index in range(1, 6):
        troubles.append(sick(f"n{index}", "net.infiniband"))
        state, decisions = decide(state, view(*troubles), NOW + index * 601, ON)
        assert Verb.TRIP not in [d.verb for d in decisions]


def test_a_node_is_opened_again_only_after_every_proof_since_the_drain() -> None:
    state, held = drained(), {"n3": "muster: gpu.lost"}
    assert decide(state, seen([sick("n3")], {"n3": PROVEN}, held), NOW + 100, ON)[1] == []  # still sick
    assert decide(state, seen([], {"n3": {**PROVEN, "canary": NOW - 1}}, held), NOW + 100, ON)[1] == []
    assert decide(state, seen([], {}, held), NOW + 100, ON)[1] == []
    after, (decision,) = decide(state, seen([], {"n3": PROVEN}, held), NOW + 100, ON)
    assert (decision.verb, decision.allowed, decision.incident) == (Verb.UNDRAIN, True, "i-n3")
    assert decision.why == "gpu.lost is over and it passed scan, pairs, canary"
    assert done(after, decision).ours == {}


def test_a_drain_that_somebody_took_over_is_never_undone() -> None:
    _, (decision,) = decide(drained(), view(passed={"n3": PROVEN}, n3="Bob replaces the board"), NOW + 100, ON)
    assert (decision.allowed, decision.why) == (False, "somebody else holds it now: Bob replaces the board")


def test_a_node_that_somebody_opened_is_forgotten() -> None:
    state, (decision,) = decide(drained(), view(), NOW + 100, ON)
    assert (decision.verb, decision.allowed, decision.why) == (Verb.UNDRAIN, True, "somebody opened it already")
    assert done(state, decision).ours == {}


def test_a_failed_engine_call_leaves_the_decision_for_the_next_time() -> None:
    state, first = decide(PolicyState(), view(sick("n3")), NOW, ON)
    _, again = decide(state, view(sick("n3")), NOW + 30, ON)
    assert [(d.node, d.allowed) for d in again] == [(d.node, d.allowed) for d in first]


STEPS = st.lists(
    st.tuples(
        st.floats(min_value=0, max_value=40_000),
        st.sets(st.sampled_from([f"n{index}" for index in range(1, 11)]), max_size=7),
        st.sets(st.sampled_from([f"n{index}" for index in range(1, 11)]), max_size=3),
        st.booleans(),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=200)
@given(STEPS, st.booleans())
def test_invariants_hold_over_random_histories(steps: list[tuple[float, set[str], set[str], bool]], on: bool) -> None:
    config = PolicyConfig(enabled=on, budget_share=0.2, spare=2)
    state, now, held = PolicyState(), NOW, dict[str, str]()
    drains: list[float] = []
    for passes, ill, foreign, works in steps:
        now += passes
        states: dict[str, NodeState | str] = {**{name: "somebody" for name in foreign if name not in held}, **held}
        passed = {node: dict.fromkeys(config.proofs, now) for node in held}
        now_seen = seen((sick(node, since=now) for node in sorted(ill)), passed, states)
        state, decisions = decide(state, now_seen, now, config)
        for decision in decisions:
            if not decision.allowed or decision.verb in (Verb.TRIP, Verb.RESET):
                continue
            assert on or decision.why == "somebody opened it already"
            if not works:
                continue
            state = done(state, decision)
            if decision.verb is Verb.DRAIN:
                assert state.tripped == 0.0
                assert decision.node not in states
                held[decision.node] = f"muster: {decision.cause}"
                drains.append(now)
            elif decision.node in held:
                assert decision.node not in ill
                del held[decision.node]
        assert sum(now - at < 86_400 for at in drains) <= budget(10, config)
        well = [n for n in now_seen.nodes if n.name not in held and n.name not in foreign and n.name not in ill]
        assert len(well) >= 2 or not any(d.allowed and d.verb is Verb.DRAIN for d in decisions)
