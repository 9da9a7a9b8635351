"""The roll call: every node as it last spoke, in memory, so that a sign of life costs no transaction.

What a sign of life says is written to the store every few seconds; what a change says is there before it is answered.
"""

import threading
from collections.abc import Iterable

import msgspec

from checks.base import Finding, Status
from checks.clock import Clock
from checks.runner import fingerprint
from daemons.fleet.admission import SILENT_INTERVALS, Admission, admit
from daemons.fleet.store import OWN, NodeRow, after, heard
from daemons.ledger.records import Kind
from daemons.wire import Batch


class Roll:
    """All nodes by name; every method may be called from any thread.

    When a node spoke last is kept by the monotonic clock as well: a step of the wall clock silences nobody, and after a
    start every node has its intervals anew.
    """

    def __init__(self, nodes: Iterable[NodeRow], clock: Clock) -> None:
        self._clock = clock
        self._nodes = {node.node: node for node in nodes}
        self._began = clock.monotonic()
        self._spoke = dict.fromkeys(self._nodes, self._began)
        self._unsaved: set[str] = set()
        self._lock = threading.Lock()

    def nodes(self) -> list[NodeRow]:
        """All of them, in order of name."""
        with self._lock:
            return [self._nodes[name] for name in sorted(self._nodes)]

    def sign_of_life(self, batch: Batch, now: float) -> Admission | None:
        """What is to be answered when the store need not be asked; None when it must be."""
        with self._lock:
            row = self._nodes.get(batch.node)
            if row is None:
                return None
            self._spoke[batch.node] = self._clock.monotonic()
            admission = admit(row.known, batch, now)
            if admission.error:
                return admission
            if admission.fresh or admission.replaced or admission.applied != row.known.applied:
                return None
            self._nodes[batch.node] = heard(batch, after(batch, admission, now), row.silent, now)
            self._unsaved.add(batch.node)
            return admission

    def taken(self, batch: Batch, admission: Admission, now: float) -> None:
        """The store has taken this."""
        with self._lock:
            row = self._nodes.get(batch.node)
            silent = row.silent if row else False
            self._nodes[batch.node] = heard(batch, after(batch, admission, now), silent, now)
            self._spoke[batch.node] = self._clock.monotonic()

    def unsaved(self) -> list[NodeRow]:
        """The nodes that spoke since this was last asked."""
        with self._lock:
            names, self._unsaved = self._unsaved, set()
            return [self._nodes[name] for name in names if name in self._nodes]

    def unwritten(self, nodes: Iterable[NodeRow]) -> None:
        """These could not be written after all."""
        with self._lock:
            self._unsaved.update(node.node for node in nodes)

    def turned(self) -> tuple[list[NodeRow], list[NodeRow]]:
        """Nodes that have fallen silent, and silent ones that speak again, since people were told."""
        now = self._clock.monotonic()
        with self._lock:
            quiet = {
                name
                for name, row in self._nodes.items()
                if now - self._spoke[name] > SILENT_INTERVALS * row.known.interval
            }
            rows = self._nodes.values()
            fallen = [row for row in rows if row.node in quiet and not row.silent]
            # One that was silent before a start does not speak again only because its intervals began anew.
            back = [row for row in rows if row.silent and self._spoke[row.node] > self._began]
            return fallen, [row for row in back if row.node not in quiet]

    def mark(self, nodes: Iterable[NodeRow], silent: bool) -> None:
        """People were told."""
        with self._lock:
            for node in nodes:
                self._nodes[node.node] = msgspec.structs.replace(self._nodes[node.node], silent=silent)

    def forget(self, node: str) -> None:
        """The node is gone for good."""
        with self._lock:
            self._nodes.pop(node, None)
            self._spoke.pop(node, None)


def silence(node: NodeRow, silent: bool, now: float) -> tuple[Kind, Finding]:
    """What is to be told of a node that fell silent, or speaks again."""
    found = Finding(
        component=f"node/{node.node}",
        kind="silent",
        status=Status.UNKNOWN if silent else Status.OK,
        node=node.node,
        source=OWN,
        summary=f"says nothing for {now - node.known.seen:.0f} s (it speaks every {node.known.interval:.0f} s)"
        if silent
        else "speaks again",
        advice="see whether the node is up and reaches the fleet: `systemctl status muster-node` on it"
        if silent
        else "",
        first_seen=node.known.seen,
        last_seen=now,
    )
    found = msgspec.structs.replace(found, fingerprint=fingerprint(node.node, OWN, found))
    return (Kind.OPENED if silent else Kind.CLEARED), found
