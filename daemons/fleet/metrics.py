"""Prometheus metrics of the fleet daemon, from its board."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from daemons.fleet.admission import Why
from daemons.fleet.board import FleetBoard
from daemons.fleet.steward import Stewarding
from daemons.metrics import gauge, queue

STATUSES = ("ok", "warn", "fail", "unknown", "silent")


class FleetCollector:
    """Everything the fleet says of itself and its nodes, from one snapshot."""

    def __init__(self, board: Callable[[], FleetBoard]) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """Metric families of the snapshot as it is now."""
        board = self._board()
        yield gauge("muster_build_info", "Constant 1, labelled with the version.", {"version": board.version}, 1)
        yield gauge("muster_start_time_seconds", "When this daemon started, since the epoch.", {}, board.started)
        yield from intake(board)
        yield from queue(board.incidents, board.alerts)
        if board.policy is not None:
            yield from policy(board.policy)


def intake(board: FleetBoard) -> Iterator[Metric]:
    """Nodes, what they sent, and whether it could be kept."""
    nodes = GaugeMetricFamily("muster_fleet_nodes", "Nodes that ever reported, by how they are.", labels=["status"])
    for status in STATUSES:
        nodes.add_metric([status], board.nodes.get(status, 0))
    batches = CounterMetricFamily(
        "muster_fleet_batches", "Batches that came in since the start, by what was done with them.", labels=["result"]
    )
    for why in Why:
        batches.add_metric([str(why)], board.batches.get(why, 0))
    changes = CounterMetricFamily("muster_fleet_changes", "Changes of findings taken since the start.")
    changes.add_metric([], board.changes)
    yield from (nodes, batches, changes)
    yield gauge("muster_fleet_store_up", "1 while the store answers and can be written.", {}, float(not board.store))
    yield gauge(
        "muster_fleet_changes_waiting", "Changes in the store that no incident was made of yet.", {}, board.behind
    )


def policy(last: Stewarding) -> Iterator[Metric]:
    """What the policy has done and what holds it back."""
    decisions = CounterMetricFamily(
        "muster_fleet_policy_decisions",
        "Decisions since the start; allowed=no are those that would have been.",
        labels=["action", "allowed"],
    )
    for (verb, allowed), count in sorted(last.decisions.items()):
        decisions.add_metric([verb, "yes" if allowed else "no"], count)
    yield decisions
    yield gauge("muster_fleet_engine_up", "1 while the scheduler answers.", {}, float(not last.trouble))
    yield gauge("muster_fleet_nodes_drained", "Nodes that muster has drained.", {}, len(last.state.ours))
    yield gauge("muster_fleet_breaker_open", "1 while the circuit breaker is open.", {}, float(last.state.tripped > 0))


class FleetExposition:
    """The /metrics page of the fleet; holds its own registry."""

    def __init__(self, board: Callable[[], FleetBoard]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(FleetCollector(board))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self._registry)
