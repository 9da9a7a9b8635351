"""Carries the ledger's changes to the fleet: each at least once, in order, for as long as it takes (docs/wire.md).

Its place is a reader's cursor in the ledger, moved only to what the fleet says is durable with it. A fleet that knows
less than was sent (restored from a backup) is told again from there, as far as the ledger still reaches.
"""

import hashlib
import logging
import random
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import httpx
import msgspec

from checks.clock import Clock
from checks.host import Host, Unreadable
from daemons.ledger import LedgerChange
from daemons.node.board import LinkState
from daemons.node.config import FleetLinkConfig
from daemons.wire import BATCH_CHANGES, BODY_BYTES, PATH, VERSION, Batch, Receipt

log = logging.getLogger("muster.fleet_link")

READER = "fleet"
TIMEOUT_SECONDS = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
_STOP_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a batch says of the node beside its changes."""

    node: str
    machine: str
    boot_id: str
    status: str
    agent: str
    checks: int


class Source(Protocol):
    """What is asked of the ledger."""

    @property
    def id(self) -> str: ...
    def changes_after(self, seq: int, limit: int = 1000) -> list[LedgerChange]: ...
    def oldest(self) -> int: ...
    def register(self, reader: str, seq: int = 0) -> int: ...
    def advance(self, reader: str, seq: int) -> None: ...


class Post(Protocol):
    """Sends a body; status and body of the answer. Raises httpx.HTTPError."""

    def __call__(self, body: bytes) -> tuple[int, bytes]: ...
    def close(self) -> None: ...


class Refused(Exception):
    """The fleet answered and did not take the batch; the message says why."""


def pause(failures: int, jitter: float) -> float:
    """Seconds to wait after so many failures in a row: doubled each time up to five minutes, spread by jitter (0..1)
    so that a fleet that comes back is not met by every node at once."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 20))
    return longest * (0.5 + 0.5 * jitter)


def receipt(status: int, body: bytes) -> Receipt:
    """What the fleet answered. Raises Refused."""
    try:
        said = msgspec.json.decode(body, type=Receipt)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"answered {status}, no receipt") from error
    if status != 200 or said.error:
        raise Refused(f"answered {status}: {said.error or 'no reason given'}")
    return said


class Outbox:
    """The delivery of one ledger to one fleet, in a thread of its own; `state` may be read from any."""

    def __init__(
        self,
        config: FleetLinkConfig,
        ledger: Source,
        facts: Callable[[], Facts],
        clock: Clock,
        post: Post,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._facts = facts
        self._clock = clock
        self._post = post
        self._jitter = jitter
        self._after = ledger.register(READER)
        self._limit = BATCH_CHANGES
        self._failures = 0
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._deliver, name="fleet", daemon=True)
        self.state = LinkState()

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        if not self._failures:  # a fleet that is away is not asked more often because much happens
            self._wake.set()

    def close(self) -> None:
        """End after the request under way."""
        self._ending = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)
        self._post.close()

    def step(self) -> float:
        """Send one batch; seconds until the next unless something new comes."""
        try:
            changes = self._send()
        except (httpx.HTTPError, Refused) as error:
            return self._failed(error)
        if self._failures:
            log.info("fleet: %s works again", self._config.url)
        self._failures = 0
        self.state = LinkState(url=self._config.url, reached=self._clock.now(), delivered=self._after)
        return 0.0 if changes else self._config.interval

    def _send(self) -> int:
        changes = self._ledger.changes_after(self._after, self._limit)
        body = msgspec.json.encode(self._batch(changes))
        if len(body) > BODY_BYTES and self._limit > 1:
            self._limit = max(1, self._limit // 2)
            return 1
        said = receipt(*self._post(body))
        self._limit = BATCH_CHANGES
        self._after = said.applied
        self._ledger.advance(READER, said.applied)
        return len(changes)

    def _batch(self, changes: list[LedgerChange]) -> Batch:
        facts = self._facts()
        return Batch(
            version=VERSION,
            node=facts.node,
            ledger=self._ledger.id,
            after=self._after,
            changes=tuple(changes),
            machine=facts.machine,
            oldest=self._ledger.oldest(),
            sent=self._clock.now(),
            interval=self._config.interval,
            boot_id=facts.boot_id,
            status=facts.status,
            agent=facts.agent,
            checks=facts.checks,
        )

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        why = str(error) or type(error).__name__
        if self._failures == 1:
            log.warning("fleet: %s: %s; changes wait in the ledger", self._config.url, why)
        self.state = LinkState(
            url=self._config.url, reached=self.state.reached, delivered=self._after, trouble=why[:200]
        )
        return pause(self._failures, self._jitter())

    def _deliver(self) -> None:
        while not self._ending:
            try:
                wait = self.step()
            except Exception:
                log.exception("fleet: the delivery failed")
                wait = _LONGEST_PAUSE
            if wait and not self._ending:
                self._wake.wait(wait)
            self._wake.clear()


class Sender:
    """Posts to the fleet over one connection that is kept open. Raises OSError when the ca file cannot be used."""

    def __init__(self, config: FleetLinkConfig, token: str) -> None:
        verify = ssl.create_default_context(cafile=config.ca) if config.ca else True
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        self._address = config.url.rstrip("/") + PATH
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS, verify=verify, headers=headers)

    def __call__(self, body: bytes) -> tuple[int, bytes]:
        answer = self._client.post(self._address, content=body)
        return answer.status_code, answer.content

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()


def machine_of(host: Host) -> str:
    """What stays the same while it is the same machine, without giving its machine id away (machine-id(5))."""
    try:
        raw = host.read(host.etc / "machine-id")
    except Unreadable:
        return ""
    return hashlib.sha256(f"muster {raw}".encode()).hexdigest()[:16]
