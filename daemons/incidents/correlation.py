"""Which findings of many nodes are one fault: what they share, when they began, and the job that died of them.

Pure. On one node it joins a job's failure with the trouble of the node that explains it; with a topology it also joins
what a switch, a rack's cooling or a file server did to many nodes. What began long after the rest is told apart, so
that a second fault on the same switch is never hidden behind the first.
"""

from collections.abc import Iterable, Mapping

import msgspec

from checks.base import Finding, Status
from daemons.incidents.grouping import JOB, family, key_of

# A switch takes the links of its nodes, a rack's cooling its GPUs' clocks, a file server the mounts of everybody.
_BY_LEAF = frozenset({"net.infiniband", "net.socket"})
_BY_RACK = frozenset({"gpu.thermal_power"})
# Nodes that fall silent together: their rack lost its power, or the switch that they report through.
_SILENT = "silent"
_SERVER_GONE = frozenset({"hung", "stale", "unreachable"})
# What a job's own code or data did is not explained by a sick node beside it.
_OWN_FAULTS = ("program.", "data.")
_OF_THE_NODE = ("gpu.", "net.", "host.", "storage.")


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """node -> leaf switch, node -> rack; a node that is in neither shares nothing that is known."""

    leaves: Mapping[str, str] = {}
    racks: Mapping[str, str] = {}


class Correlation(msgspec.Struct, frozen=True, kw_only=True):
    """together_seconds: what shares a cause and a place is one fault when it begins within so long of the last.

    explains_seconds: a node's trouble explains a job's failure when both began within so long of each other.
    """

    topology: Topology = Topology()
    together_seconds: float = 600.0
    explains_seconds: float = 600.0

    def key(self, finding: Finding) -> str:
        """Findings with the same key that begin together are one incident."""
        shared = self.place(finding)
        return f"{finding.cause}|{family(finding)}|{shared}" if shared else key_of(finding)

    def place(self, finding: Finding) -> str:
        """What this finding's component shares with other nodes, "" for nothing."""
        if finding.cause in _BY_LEAF:
            leaf = self.topology.leaves.get(finding.node)
            return f"leaf/{leaf}" if leaf else ""
        if finding.cause in _BY_RACK:
            rack = self.topology.racks.get(finding.node)
            return f"rack/{rack}" if rack else ""
        if finding.kind == _SILENT:
            rack, leaf = self.topology.racks.get(finding.node), self.topology.leaves.get(finding.node)
            return f"rack/{rack}" if rack else f"leaf/{leaf}" if leaf else ""
        known = self.topology.leaves or self.topology.racks
        if known and finding.cause == "storage.filesystem" and finding.kind in _SERVER_GONE:
            return finding.component
        return ""

    def explains(self, one: Finding, begun: float, other_cause: str, other_begun: float) -> bool:
        """Whether a finding of a job and an incident of its node (or the other way round) are one: what it died of."""
        is_job = family(one).startswith(f"{JOB}/")
        if abs(begun - other_begun) > self.explains_seconds or (not is_job and one.status is not Status.FAIL):
            return False
        job_cause, node_cause = (one.cause, other_cause) if is_job else (other_cause, one.cause)
        return of_the_node(node_cause) and (job_cause == node_cause or not job_cause.startswith(_OWN_FAULTS))


def of_the_node(cause: str) -> bool:
    """Whether the cause lies in the machine, its network or its storage."""
    return cause.startswith(_OF_THE_NODE)


def best(finding: Finding, candidates: Iterable[tuple[str, str, float]], begun: float) -> str | None:
    """Of (incident, cause, begun): the one of the same cause, else the one that began nearest; None of none."""
    ranked = sorted(candidates, key=lambda c: (c[1] != finding.cause, abs(begun - c[2]), c[0]))
    return ranked[0][0] if ranked else None


# A node by itself: no topology.
ALONE = Correlation()
