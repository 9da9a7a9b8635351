"""Every metric that a daemon of ours can show, with its labels: of the collectors, on a board with everything."""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from checks.base import Finding, Status
from checks.registry import CHECKS
from checks.runner import Outcome
from daemons.metrics import BoardCollector
from daemons.node.board import AlertState, Board, CheckState, LinkState

GOLDEN = Path(__file__).parent / "golden/metrics_h100_host_healthy.prom"
# What Prometheus itself adds to every series of a target.
TARGET = frozenset({"job", "instance"})
_NAME = re.compile(r"(?<![\w:$.])([a-z][a-z0-9]*(?:_[a-z0-9]+)+|up)(?![\w:(]|\s*\()")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHERS = re.compile(r"([\w:]+)\{([^}]*)\}")


def full_board() -> Board:
    """A board on which nothing is missing: every check with a value for every metric that it declares."""
    states = {}
    for check in CHECKS:
        found = Finding(component="c", status=Status.FAIL, summary="", values=dict.fromkeys(check.metrics, 1.0))
        ran = Outcome(check=check, findings=(found,), seconds=0.1, at=1.0, looked=True, memory={})
        states[check.name] = CheckState(name=check.name, interval=60.0).ran(ran)
    opened = Finding(component="c", status=Status.FAIL, summary="", cause="gpu.lost", source="xid")
    return Board(
        node="n1",
        version="1",
        started=1.0,
        checks=states,
        open=(opened,),
        opened={("xid", "gpu.lost"): 1},
        incidents={"fail": 1},
        alerts=AlertState(sent={"slack": 1}),
        hung={"nvml": 1.0},
        link=LinkState(url="https://fleet"),
    )


def families() -> Iterator[Metric]:
    """Of the node agent."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(full_board))
    yield from registry.collect()


def exposed() -> dict[str, frozenset[str]]:
    """Name of every sample -> its labels, those of the target included."""
    found = {sample.name: frozenset(sample.labels) | TARGET for each in families() for sample in each.samples}
    processes = re.findall(r"^(process_\w+) ", GOLDEN.read_text(), re.MULTILINE)
    return {**found, **dict.fromkeys(processes, TARGET), "up": TARGET}


def metrics_in(expr: str) -> set[str]:
    """Names of raw metrics in a PromQL expression; recorded names (with a colon) are not among them."""
    bare = _GROUPING.sub(" ", _TEXT.sub('""', expr))
    bare = re.sub(r"\{[^}]*\}", "{}", bare)
    return set(_NAME.findall(bare)) - {"group_left", "group_right"}


def labels_in(expr: str) -> set[str]:
    """Labels that an expression groups by, joins on or selects."""
    names = {name.strip() for group in _GROUPING.findall(expr) for name in group.split(",")}
    for _, matchers in _MATCHERS.findall(expr):
        names |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", _TEXT.sub('""', matchers)))
    return names - {""}
