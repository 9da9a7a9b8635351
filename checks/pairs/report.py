"""Verdicts of a sweep as findings: what the ledger keeps and people are told of."""

from collections.abc import Iterator, Sequence

from checks.base import Finding, Status
from checks.pairs.runner import Answer, Outcome
from checks.pairs.topology import Topology
from checks.pairs.verdict import Kind, Verdict

# Which cause of the taxonomy a slow part is, by what it is measured with.
_CAUSES = {"perftest": "net.infiniband", "nvlink": "gpu.nvlink"}


def findings(
    topology: Topology, verdicts: Sequence[Verdict], outcomes: Sequence[Outcome], judged: bool, runner: str = ""
) -> Iterator[Finding]:
    """One finding per verdict, one for what gave no figure, and `ok` only if some was measured and none is wrong."""
    cause = _CAUSES.get(runner, "net.socket")
    for verdict in verdicts:
        yield _finding(verdict, cause)
    broken = [outcome for outcome in outcomes if outcome.answer is Answer.UNKNOWN]
    if broken:
        yield Finding(
            component="pairs",
            status=Status.UNKNOWN,
            summary=f"{len(broken)} of {len(outcomes)} tests gave no figure: {broken[0].note}",
            source="pairs",
            advice="mend the tool on that node, then measure again",
        )
    elif not outcomes or not judged:
        told = f"{len(outcomes)} tests are too few to know the noise by"
        yield Finding(component="pairs", status=Status.UNKNOWN, summary=told, advice="give more rounds", source="pairs")
    elif len(topology.nodes) == 2 and not verdicts:
        rates = [sum(rate.gigabytes for rate in outcome.forth) for outcome in outcomes if outcome.forth]
        told = f"{sorted(rates)[len(rates) // 2]:.3f} GB/s" if rates else "nothing came through"
        told += "; the only pair has no peers to compare with"
        yield Finding(component="pairs", status=Status.UNKNOWN, summary=told, advice="add a third node", source="pairs")
    elif not any(verdict.kind is not Kind.TRANSIENT for verdict in verdicts):
        pairs = {frozenset((outcome.a, outcome.b)) for outcome in outcomes}
        every = len(topology.nodes) * (len(topology.nodes) - 1) // 2
        told = f"{len(topology.nodes)} nodes, {len(pairs)} of {every} pairs measured, none slower than its peers"
        yield Finding(component="pairs", status=Status.OK, summary=told, source="pairs")


def _finding(verdict: Verdict, cause: str) -> Finding:
    status = {Kind.TRANSIENT: Status.OK, Kind.UNCLEAR: Status.WARN}.get(verdict.kind, Status.FAIL)
    told = f"{verdict.percent:g} % slower than its peers"
    if verdict.duty < 0.95:
        told += f" in {100 * verdict.duty:.0f} % of its tests"
    if verdict.kind is Kind.TRANSIENT:
        told += ", and not again when it was looked into"
    if verdict.kind is Kind.UNCLEAR:
        told += f"; cannot tell apart: {', '.join(verdict.rivals)}"
    samples = [f"{s.a}-{s.b} {s.gigabytes:g} GB/s ({-s.percent:+g} %)" for s in verdict.samples[:4]]
    return Finding(
        component=verdict.component,
        status=status,
        summary=told if not verdict.blames else f"{told} (confidence {verdict.confidence:.3f})",
        cause=cause if verdict.blames else "",
        kind=str(verdict.kind),
        evidence="; ".join(samples),
        advice=verdict.advice,
        source="pairs",
        values={"pairs_loss_ratio": round(verdict.percent / 100, 4)} if verdict.blames else {},
    )
