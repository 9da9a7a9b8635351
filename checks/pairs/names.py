"""The names of what can be at fault: the same words in the simulator's truth, in verdicts and in the ledger."""

from checks.pairs.topology import Topology


def node(topology: Topology, index: int, rail: int | None = None, direction: str = "") -> str:
    """`node/n3`, `node/n3/tx`, `node/n3/rail/5`, `node/n3/rail/5/rx`."""
    name = f"node/{topology.nodes[index]}"
    if rail is not None:
        name += f"/rail/{rail}"
    return f"{name}/{direction}" if direction else name


def link(topology: Topology, a: int, b: int, direction: str = "") -> str:
    """`link/n3/n9`, or `link/n3->n9` where one direction is at fault. direction: as seen from a."""
    first, second = topology.nodes[a], topology.nodes[b]
    if direction == "tx":
        return f"link/{first}->{second}"
    if direction == "rx":
        return f"link/{second}->{first}"
    return f"link/{first}/{second}" if a < b else f"link/{second}/{first}"


def leaf(topology: Topology, index: int, rail: int | None = None) -> str:
    """`leaf/leaf03`, or `leaf/pod03-rail5` in a rail-optimised fabric."""
    name = topology.leaves[index]
    return f"leaf/{name}" if rail is None else f"leaf/{name}-rail{rail}"


def path(topology: Topology, a: int, b: int, rail: int | None = None) -> str:
    """`path/leaf03/leaf07`: everything between two leaves; `path/pod03/pod07/rail/5` in a rail-optimised fabric."""
    name = f"path/{topology.leaves[min(a, b)]}/{topology.leaves[max(a, b)]}"
    return name if rail is None else f"{name}/rail/{rail}"
