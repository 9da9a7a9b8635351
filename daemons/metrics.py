"""Prometheus metrics from the last outcomes: read at the scrape, so what vanished from the node has no series left."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from checks.base import Finding, Status
from checks.registry import CHECKS
from daemons.node.board import AlertState, Board, CheckState

# At most so many open findings get a series of their own; the count beside them is always whole.
OPEN_SERIES = 200
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class BoardCollector:
    """Everything muster says of a node, from one snapshot."""

    def __init__(self, board: Callable[[], Board]) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """Metric families of the snapshot as it is now."""
        board = self._board()
        yield gauge("muster_build_info", "Constant 1, labelled with the version.", {"version": board.version}, 1)
        yield gauge("muster_start_time_seconds", "When this agent started, since the epoch.", {}, board.started)
        yield from checks(board)
        yield from findings(board)
        yield from measures(board)
        yield from alerts(board)


def checks(board: Board) -> Iterator[Metric]:
    """How every check is and when it last looked."""
    status = GaugeMetricFamily(
        "muster_check_status", "1 for the status that the check's last run had.", labels=["check", "status"]
    )
    seconds = GaugeMetricFamily("muster_check_duration_seconds", "How long the last run took.", labels=["check"])
    last = GaugeMetricFamily(
        "muster_check_last_run_timestamp_seconds", "When the check last ran, since the epoch.", labels=["check"]
    )
    looked = GaugeMetricFamily(
        "muster_check_last_success_timestamp_seconds",
        "When the check last ran to its end, since the epoch; 0 when it never has.",
        labels=["check"],
    )
    interval = GaugeMetricFamily("muster_check_interval_seconds", "How often the check runs.", labels=["check"])
    runs = CounterMetricFamily("muster_check_runs", "Runs since the agent started.", labels=["check"])
    unknown = CounterMetricFamily(
        "muster_check_unknown_runs", "Runs since the agent started that could not tell.", labels=["check"]
    )
    for state in board.checks.values():
        interval.add_metric([state.name], state.interval)
        looked.add_metric([state.name], state.last_looked)
        runs.add_metric([state.name], state.runs)
        unknown.add_metric([state.name], state.unknown_runs)
        if state.outcome is None:
            continue
        for word in Status:
            status.add_metric([state.name, str(word)], float(state.outcome.status is word))
        seconds.add_metric([state.name], round(state.outcome.seconds, 6))
        last.add_metric([state.name], state.outcome.at)
    yield from (status, seconds, last, looked, interval, runs, unknown)
    hung = GaugeMetricFamily(
        "muster_door_hung_seconds", "How long a probe has hung in this door and cannot be killed.", labels=["door"]
    )
    for door, age in board.hung.items():
        hung.add_metric([door], age)
    yield hung


def findings(board: Board) -> Iterator[Metric]:
    """What is open, each with since when, and how many by cause."""
    count: dict[tuple[str, str, str], int] = defaultdict(int)
    since = GaugeMetricFamily(
        "muster_finding_first_seen_timestamp_seconds",
        f"Open findings with when each was first seen; the first {OPEN_SERIES} only.",
        labels=["check", "component", "status", "cause"],
    )
    seen: set[tuple[str, ...]] = set()
    for finding in board.open:
        count[(finding.source, str(finding.status), finding.cause)] += 1
        labels = (finding.source, finding.component, str(finding.status), finding.cause)
        if labels not in seen and len(seen) < OPEN_SERIES:
            seen.add(labels)
            since.add_metric(labels, finding.first_seen)
    number = GaugeMetricFamily(
        "muster_findings_open", "Findings that are open, by check.", labels=["check", "status", "cause"]
    )
    for key, value in sorted(count.items()):
        number.add_metric(key, value)
    opened = CounterMetricFamily(
        "muster_findings_opened", "Findings opened since the agent started.", labels=["check", "cause"]
    )
    for (check, cause), value in sorted(board.opened.items()):
        opened.add_metric((check, cause), value)
    yield from (number, since, opened)


def measures(board: Board) -> Iterator[Metric]:
    """The numbers behind the checks' words, as muster_NAME{component}."""
    for check in CHECKS:
        state = board.checks.get(check.name)
        if state is None or not check.metrics:
            continue
        for name, text in check.metrics.items():
            yield _family(f"muster_{name}", text, _samples(state, name))


def alerts(board: Board) -> Iterator[Metric]:
    """Incidents, the queue of messages about them, and the ledger they come from."""
    yield from queue(board.incidents, board.alerts)
    yield gauge(
        "muster_ledger_degraded",
        "1 while the ledger cannot be written and is kept in memory.",
        {},
        float(bool(board.degraded)),
    )
    if board.link.url:
        text = "When the fleet last took a batch of this node, since the epoch; 0 when it never has."
        yield gauge("muster_fleet_link_last_success_timestamp_seconds", text, {}, board.link.reached)


def queue(open_incidents: Mapping[str, int], state: AlertState) -> Iterator[Metric]:
    """Incidents and the queue of messages about them."""
    incidents = GaugeMetricFamily("muster_incidents_open", "Incidents that are open.", labels=["severity"])
    for severity, number in sorted(open_incidents.items()):
        incidents.add_metric([severity], number)
    yield incidents
    yield gauge("muster_alerts_waiting", "Messages that wait to be delivered.", {}, state.waiting)
    yield gauge(
        "muster_alerts_oldest_seconds", "How long the oldest waiting message has waited.", {}, state.oldest_seconds
    )
    sent = CounterMetricFamily("muster_alerts_sent", "Messages delivered since the agent started.", labels=["channel"])
    for channel, number in sorted(state.sent.items()):
        sent.add_metric([channel], number)
    yield sent


def _samples(state: CheckState, name: str) -> dict[str, float]:
    found: tuple[Finding, ...] = state.outcome.findings if state.outcome else ()
    return {finding.component: finding.values[name] for finding in found if name in finding.values}


def _family(name: str, text: str, samples: Mapping[str, float]) -> Metric:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, text, labels=["component"])
    for component, value in samples.items():
        family.add_metric([component], value)
    return family


def gauge(name: str, text: str, labels: Mapping[str, str], value: float) -> Metric:
    """A family of one sample."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


class Exposition:
    """The /metrics page of one board; holds its own registry, touches no global one."""

    def __init__(self, board: Callable[[], Board]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(BoardCollector(board))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self._registry)
