"""Which nodes share a leaf switch: the difference between a slow node and a slow fabric.

A topology comes from configuration, from Slurm (`scontrol show topology`) or from the InfiniBand fabric itself
(`ibnetdiscover`); without one all pairs are of one class and leaf verdicts are not possible.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field


class TopologyError(ValueError):
    """A topology that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes in their order, the leaf each hangs on, and the rails (parallel NICs) of each.

    leaf: one index into `leaves` per node. rails: NICs per node that are measured at once. rail_leaves: in a
    rail-optimised fabric NIC k of all nodes of a group hangs on a leaf of its own, so that `leaves` are then groups
    ("pods") and a leaf is named GROUP-railK.
    """

    nodes: tuple[str, ...]
    leaf: tuple[int, ...] = ()
    leaves: tuple[str, ...] = ()
    rails: int = 1
    rail_leaves: bool = False
    index: Mapping[str, int] = field(init=False, compare=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.nodes)) != len(self.nodes):
            raise TopologyError("a node is named twice")
        if self.leaf and len(self.leaf) != len(self.nodes):
            raise TopologyError(f"{len(self.nodes)} nodes but {len(self.leaf)} leaves given for them")
        if self.rails < 1:
            raise TopologyError(f"{self.rails} rails: there is at least one")
        object.__setattr__(self, "index", {name: i for i, name in enumerate(self.nodes)})

    @property
    def known(self) -> bool:
        """Whether more than one leaf is known, so that leaf and node can be told apart."""
        return len(set(self.leaf)) > 1

    def members(self) -> dict[int, list[int]]:
        """Leaf index to the node indices on it."""
        found: dict[int, list[int]] = {}
        for node, leaf in enumerate(self.leaf):
            found.setdefault(leaf, []).append(node)
        return found


def flat(nodes: Sequence[str], rails: int = 1) -> Topology:
    """Nodes of which no leaf is known."""
    return Topology(tuple(nodes), rails=rails)


def grouped(groups: Mapping[str, Iterable[str]], rails: int = 1, rail_leaves: bool = False) -> Topology:
    """The topology of {leaf: nodes}. Raises TopologyError for a node on two leaves."""
    pairs = [(node, number) for number, members in enumerate(groups.values()) for node in members]
    nodes, leaf = tuple(node for node, _ in pairs), tuple(number for _, number in pairs)
    return Topology(nodes, leaf, tuple(groups), rails, rail_leaves)


def uniform(count: int, leaf_size: int, rails: int = 1, rail_leaves: bool = False) -> Topology:
    """`count` nodes n0000... on leaves of `leaf_size`: the simulator's cluster. leaf_size 0: no leaf is known."""
    digits = max(4, len(str(max(count - 1, 0))))
    nodes = tuple(f"n{i:0{digits}d}" for i in range(count))
    if not leaf_size:
        return flat(nodes, rails)
    word = "pod" if rail_leaves else "leaf"
    leaf = tuple(i // leaf_size for i in range(count))
    return Topology(nodes, leaf, tuple(f"{word}{i:02d}" for i in range(max(leaf, default=-1) + 1)), rails, rail_leaves)


def chosen(topology: Topology, wanted: Sequence[str]) -> Topology:
    """The topology of `wanted` only, in that order; a node it does not know has a leaf of its own, "?"."""
    if not topology.leaf:
        return flat(wanted, topology.rails)
    unknown = len(topology.leaves)
    leaf = tuple(topology.leaf[topology.index[n]] if n in topology.index else unknown for n in wanted)
    leaves = (*topology.leaves, "?") if unknown in leaf else topology.leaves
    return Topology(tuple(wanted), leaf, leaves, topology.rails, topology.rail_leaves)


_SWITCH = re.compile(r"SwitchName=(\S+)\s+Level=(\d+).*?\bNodes=(\S+)")


def from_slurm(text: str) -> Topology:
    """The leaves (level 0) of `scontrol show topology`. Raises TopologyError when it holds none."""
    groups = {name: expand(nodes) for name, level, nodes in _SWITCH.findall(text) if level == "0"}
    if not groups:
        raise TopologyError("no switch of level 0 in the answer: is topology/tree configured in slurm.conf?")
    return grouped(groups)


def expand(hosts: str) -> list[str]:
    """Slurm's short form, such as `a[1-3,7],b2`, written out. Raises TopologyError on what is not one."""
    found: list[str] = []
    for word in _words(hosts):
        match = re.fullmatch(r"([^\[\]]*)\[([^\[\]]+)\]([^\[\]]*)", word)
        if match is None and re.search(r"[\[\]]", word):
            raise TopologyError(f"{hosts!r} is no list of hosts")
        found += [word] if match is None else [f"{match[1]}{number}{match[3]}" for number in _numbers(match[2])]
    return found


def _words(hosts: str) -> Iterator[str]:
    depth, word = 0, ""
    for sign in hosts:
        depth += {"[": 1, "]": -1}.get(sign, 0)
        if sign == "," and not depth:
            yield word
            word = ""
        else:
            word += sign
    yield word


def _numbers(ranges: str) -> Iterator[str]:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise TopologyError(f"{ranges!r} is no range of numbers")
        yield from (f"{i:0{len(first)}d}" for i in range(int(first), int(last or first) + 1))


_BLOCK = re.compile(r'^(Switch|Ca)\s+\d+\s+"([^"]+)"\s*#\s*"([^"]*)"', re.MULTILINE)
_PORT = re.compile(r'^\[\d+\](?:\([0-9a-f]+\))?\s+"([SH]-[0-9a-f]+)"', re.MULTILINE)


def from_ibnetdiscover(text: str) -> Topology:
    """Hosts by the switch their first port is cabled to. A host is named by the first word of its description.

    Hosts with several HCAs on different switches make a rail-optimised fabric: they are grouped by the whole set of
    their switches. Raises TopologyError when no host hangs on a switch.
    """
    blocks = list(_BLOCK.finditer(text))
    ends = [match.start() for match in blocks[1:]] + [len(text)]
    switches = {match[2]: match[3] for match in blocks if match[1] == "Switch"}
    cabled: dict[str, list[str]] = {}
    for match, end in zip(blocks, ends, strict=True):
        if match[1] != "Ca" or not match[3].split():
            continue
        peers = [port for port in _PORT.findall(text[match.end() : end]) if port in switches]
        cabled.setdefault(match[3].split()[0], []).extend(peers)
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, peers in cabled.items():
        if peers:
            groups.setdefault(tuple(sorted(set(peers))), []).append(host)
    if not groups:
        raise TopologyError("no host is cabled to a switch in the answer of ibnetdiscover")
    several = any(len(key) > 1 for key in groups)
    named = {_switch_names(key, switches): hosts for key, hosts in groups.items()}
    rails = max(len(key) for key in groups)
    return grouped(named, rails=rails, rail_leaves=several)


def _switch_names(guids: tuple[str, ...], switches: Mapping[str, str]) -> str:
    names = [switches[guid].split(";")[0] or guid for guid in guids]
    return names[0] if len(names) == 1 else f"{names[0]}+{len(names) - 1}"
