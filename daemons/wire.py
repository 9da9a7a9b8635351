"""What a node agent and the fleet daemon say to each other over HTTP, as values; docs/wire.md says it in words.

One POST /v1/changes carries one Batch and gets one Receipt. Within a schema version fields are only ever added, with
defaults, and unknown ones are ignored, so that an old agent and a new fleet (and the other way round) understand one
another; a change that breaks this gets a new version and a new path.
"""

import hashlib
import hmac
from collections.abc import Mapping

import msgspec

from daemons.ledger.records import LedgerChange

VERSION = 1
PATH = "/v1/changes"
# A batch is read no further than this; an agent that has more to tell sends more batches.
BODY_BYTES = 4 << 20
BATCH_CHANGES = 1000


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of one node's ledger, in order; none at all is a sign of life.

    node: its name. ledger: id of the ledger file. machine: what stays the same while it is the same machine, so that
    two machines with one name are told apart. after: every change up to this number was sent before. oldest: the
    oldest change the ledger still holds, 0 when it holds none. sent: the node's clock, epoch seconds. interval: seconds
    until the next batch at the latest. boot_id, status, agent (its version), checks (number): how it is.
    """

    version: int
    node: str
    ledger: str
    after: int
    changes: tuple[LedgerChange, ...] = ()
    machine: str = ""
    oldest: int = 0
    sent: float = 0.0
    interval: float = 30.0
    boot_id: str = ""
    status: str = "unknown"
    agent: str = ""
    checks: int = 0
    facts: Mapping[str, str] = {}


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """applied: every change of this ledger up to this number is durable in the fleet's store; the agent goes on from
    there, also when it is less than the agent thought (a fleet restored from a backup). version: the newest that the
    fleet speaks. error: why a batch was refused, with the remedy.
    """

    applied: int
    version: int = VERSION
    error: str = ""


def node_token(secret: str, node: str) -> str:
    """The bearer token of one node. The fleet keeps one secret and no list; a token is good for one name only."""
    return hmac.new(secret.encode(), f"muster node {node}".encode(), hashlib.sha256).hexdigest()
