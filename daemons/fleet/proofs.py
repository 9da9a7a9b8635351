"""What a node has passed, and when: read from what it says of itself and from the record of canaries. Pure.

A row of the record is `{at, status, body}`; body is JSON with `nodes`: name -> proof -> whether it was passed, such as
`{"nodes": {"n12": {"canary": true, "pairs": false}}}`. A proof that is not named was not tried.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from daemons.fleet.store import NodeRow

SCAN = "scan"


class Record(Protocol):
    """One row of the record of canaries."""

    @property
    def at(self) -> float: ...
    @property
    def body(self) -> bytes: ...


class _Body(msgspec.Struct, frozen=True):
    nodes: Mapping[str, Mapping[str, bool]] = {}


def passed(nodes: Iterable[NodeRow], records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """node -> proof -> when it was last passed, epoch seconds.

    A node has passed its scan while the last it said is that every check of it is ok. A record that failed takes back
    what an older one had proved: the newest word counts.
    """
    found: dict[str, dict[str, float]] = {}
    judged: set[tuple[str, str]] = set()
    for record in sorted(records, key=lambda record: record.at, reverse=True):
        for node, proofs in _nodes(record.body).items():
            for proof, well in proofs.items():
                if (node, proof) not in judged and well:
                    found.setdefault(node, {})[proof] = record.at
                judged.add((node, proof))
    for row in nodes:
        if row.well and not row.silent:
            found.setdefault(row.node, {})[SCAN] = row.well
    return found


def _nodes(body: bytes) -> Mapping[str, Mapping[str, bool]]:
    try:
        return msgspec.json.decode(body, type=_Body).nodes
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}  # of a later muster: proves nothing to this one
