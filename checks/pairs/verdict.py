"""What a sweep says in the end: which part is at fault, how much is lost, how sure that is and what to do next."""

import enum

import msgspec


class Kind(enum.StrEnum):
    """What is at fault. `transient` and `unclear` blame nobody."""

    NODE = "node"
    RAIL = "rail"
    LINK = "link"
    LEAF = "leaf"
    PATH = "path"
    TRANSIENT = "transient"  # seen, and gone when it was looked into
    UNCLEAR = "unclear"  # something is slow, and the parts cannot be told apart from here


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement that a verdict rests on. gigabytes: GB/s over the cells at fault. percent: loss against peers."""

    a: str
    b: str
    gigabytes: float
    percent: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One part and what is wrong with it.

    component: as in `names`. percent: bandwidth lost while it is slow. duty: share of its tests that were slow.
    confidence: 0..1 that it is this part and this pattern rather than the next likely one. rivals: for `unclear`, the
    parts it could be. round, tests: how far the sweep was when this was settled. advice: the next step for a person.
    """

    component: str
    kind: Kind
    percent: float
    duty: float = 1.0
    confidence: float = 0.0
    samples: list[Sample] = []
    rivals: list[str] = []
    round: int = 0
    tests: int = 0
    advice: str = ""

    @property
    def blames(self) -> bool:
        """Whether it accuses a part."""
        return self.kind not in (Kind.TRANSIENT, Kind.UNCLEAR)


ADVICE = {
    Kind.NODE: "drain it; compare PCIe and NIC link state, CPU clocks and IOMMU settings with a good node; retest",
    Kind.RAIL: "check this NIC's cable, transceiver, port counters and PCIe link; reseat or replace; retest",
    Kind.LINK: "both ends are well with others: look at the path between them (routing, one lane of a trunk); retest",
    Kind.LEAF: "most nodes on this switch are slow with others: check its uplinks, buffers and port errors",
    Kind.PATH: "traffic between these two leaves is slow for all nodes: check the spine links between them",
    Kind.TRANSIENT: "nothing now; it is remembered, and counts if it comes again",
    Kind.UNCLEAR: "measure with more nodes, or with nodes on other leaves, to tell the parts apart",
}
