"""The nodes' way in: POST /v1/changes, every refusal counted by its reason and answered with the remedy."""

import asyncio
import hmac
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from checks.clock import Clock
from checks.runner import fingerprint
from daemons.fleet.admission import Admission, Why
from daemons.fleet.roll import Roll
from daemons.fleet.store import StoreAway
from daemons.fleet.writer import Writer
from daemons.ledger.records import LedgerChange
from daemons.node.api import read_body
from daemons.wire import BODY_BYTES, VERSION, Batch, Receipt, node_token

# Whatever a node says of its interval: it is missed after three of them, and an hour is the longest that can be wished.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 1.0, 3600.0
_NAME_CHARS = 253  # the longest host name (RFC 1035)
_LARGEST = 2**62
_STATUS: Mapping[Why, int] = {
    Why.TOKEN: 401,
    Why.VERSION: 409,
    Why.SHADOWED: 409,
    Why.MALFORMED: 400,
    Why.OVERSIZED: 413,
    Why.STORE: 503,
}


class _Outline(msgspec.Struct, frozen=True):
    """What is read of a batch of any version."""

    version: int = 0


class Refusal(Exception):
    """A body that is no batch of this version."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why


def decoded(body: bytes, content_type: str) -> Batch:
    """The batch in a body. Raises Refusal."""
    packed = content_type.split(";")[0].strip() in ("application/msgpack", "application/x-msgpack")
    try:
        return msgspec.msgpack.decode(body, type=Batch) if packed else msgspec.json.decode(body, type=Batch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        outline = _outline(body, packed)
        if outline.version not in (0, VERSION):
            text = f"speaks version {outline.version}, this fleet speaks {VERSION}: upgrade the older of the two"
            raise Refusal(Why.VERSION, text) from error
        what = "msgpack" if packed else "JSON"
        raise Refusal(Why.MALFORMED, f"no batch in {what}: {str(error)[:200]} (docs/wire.md)") from error


def _outline(body: bytes, packed: bool) -> _Outline:
    try:
        return msgspec.msgpack.decode(body, type=_Outline) if packed else msgspec.json.decode(body, type=_Outline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Outline()


def fault(batch: Batch) -> str:
    """Why a batch cannot be taken whatever is known of the node; "" for none."""
    if not 0 < len(batch.node) <= _NAME_CHARS or not batch.node.isprintable() or "/" in batch.node:
        return f"node: {batch.node[:40]!r} is no name of a node"
    if not 0 < len(batch.ledger) <= _NAME_CHARS:
        return "ledger: no id of a ledger"
    numbers = [batch.after, batch.oldest, *(change.seq for change in batch.changes)]
    if not all(0 <= number < _LARGEST for number in numbers):
        return "a number of a change is below 0 or too large"
    times = [batch.sent, batch.interval]
    for change in batch.changes:
        times += (change.at, change.finding.first_seen, change.finding.last_seen)
    if not all(map(math.isfinite, times)):
        return "a time is no number"
    if any("\0" in text for text in _texts(batch)):
        return "a NUL character in a text"
    return ""


def _texts(batch: Batch) -> Iterator[str]:
    yield from (batch.ledger, batch.machine)
    for change in batch.changes:
        yield from (change.finding.component, change.finding.cause)


def owned(batch: Batch) -> Batch:
    """The batch with its interval in bounds and every finding under the node's own name.

    A node may have been renamed since; what it may not do is to open or clear what belongs to another.
    """
    interval = min(max(batch.interval, SHORTEST_INTERVAL), LONGEST_INTERVAL)
    changes = tuple(_own(change, batch.node) for change in batch.changes)
    return msgspec.structs.replace(batch, interval=interval, changes=changes)


def _own(change: LedgerChange, node: str) -> LedgerChange:
    finding = change.finding
    mark = fingerprint(node, finding.source, finding)
    if (finding.node, finding.fingerprint) == (node, mark):
        return change
    return msgspec.structs.replace(change, finding=msgspec.structs.replace(finding, node=node, fingerprint=mark))


class Intake:
    """Answers every POST of a node with a Receipt. counts: batches by what was done with them (admission.Why)."""

    def __init__(self, secret: str, roll: Roll, writer: Writer, clock: Clock) -> None:
        self._secret = secret
        self._roll = roll
        self._writer = writer
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[Why] = Counter()

    def counts(self) -> Mapping[Why, int]:
        """Batches since the start, by what was done with them."""
        with self._lock:
            return dict(self._counts)

    async def endpoint(self, request: Request) -> Response:
        """POST /v1/changes."""
        why, receipt = await self._answer(request)
        with self._lock:
            self._counts[why] += 1
        return Response(msgspec.json.encode(receipt), _STATUS.get(why, 200), media_type="application/json")

    async def _answer(self, request: Request) -> tuple[Why, Receipt]:
        try:
            body = await read_body(request, BODY_BYTES)
        except ValueError:
            text = f"a body above {BODY_BYTES} bytes: send fewer changes at a time"
            return Why.OVERSIZED, Receipt(applied=0, error=text)
        try:
            batch = decoded(body, request.headers.get("content-type", ""))
        except Refusal as refusal:
            return refusal.why, Receipt(applied=0, error=str(refusal))
        return await self.take(batch, request.headers.get("authorization", ""))

    async def take(self, batch: Batch, authorization: str) -> tuple[Why, Receipt]:
        """What is done with a batch that came with this Authorization header."""
        token = node_token(self._secret, batch.node)
        if not hmac.compare_digest(authorization.removeprefix("Bearer ").encode(), token.encode()):
            text = (
                f"needs the token of node {batch.node[:_NAME_CHARS]}: `muster fleet token NODE` on the fleet prints it"
            )
            return Why.TOKEN, Receipt(applied=0, error=text)
        if error := fault(batch):
            return Why.MALFORMED, Receipt(applied=0, error=error)
        batch = owned(batch)
        admission = self._roll.sign_of_life(batch, self._clock.now())
        if admission is None:
            try:
                admission = await asyncio.wrap_future(self._writer.put(batch))
            except StoreAway as away:
                return Why.STORE, Receipt(applied=0, error=f"{away}: nothing was taken, come again")
        return admission.why, _receipt(admission)


def _receipt(admission: Admission) -> Receipt:
    return Receipt(applied=admission.applied, error=admission.error)
