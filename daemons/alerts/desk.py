"""The desk: takes the ledger's changes, decides what to tell, queues it and has it delivered; all of it durable.

Situation, place in the ledger and queue change in one transaction. While that cannot be written (a full disk) the
desk goes on in memory, says so, and writes everything once it can.
"""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from checks.clock import Clock
from daemons import incidents as deciding
from daemons.alerts.channels import NAMES, Channels, Sender, channels
from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials
from daemons.alerts.delivery import Courier
from daemons.alerts.outbox import Outbox
from daemons.alerts.posts import Outcome, Post, PostState, Thread
from daemons.alerts.record import described
from daemons.alerts.store import Store
from daemons.incidents import Change, Incident, Tell
from daemons.incidents.correlation import ALONE, Correlation
from daemons.node.board import AlertState

_LOG = logging.getLogger("muster.alerts")
_PRUNE_SECONDS = 3600.0
# A request under way at the end is given so long; what it became is found out at the next start.
_STOP_SECONDS = 3.0


class AlertDesk:
    """Incidents and alerts of one ledger. Every method may be called from any thread.

    Raises StateError when its file cannot be read (no right, or of a newer muster); a damaged one is set aside.
    correlation: what findings of several nodes share. senders: how the channels are made, for tests.
    """

    def __init__(
        self,
        path: Path,
        config: AlertsConfig,
        clock: Clock,
        credentials: Credentials,
        *,
        correlation: Correlation = ALONE,
        senders: Callable[[AlertsConfig, Credentials], Channels] = channels,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._make = senders
        self._config = config
        self._correlation = correlation
        self._channels = senders(config, credentials)
        self._lock = threading.RLock()
        self._store = Store(path)
        now = clock.now()
        saved = self._store.load(now)
        self._situation = saved.situation
        self._facts = saved.facts
        self._outbox = Outbox(saved.posts, saved.threads, saved.facts.last_post)
        self._said: dict[str, str] = {}
        self._pruned = now
        self._couriers = {name: Courier(self, name) for name in NAMES}
        self._outbox.recover(now)
        self._outbox.awake(now, self._channels.senders)
        self._save(now)

    @property
    def cursor(self) -> int:
        """Sequence number of the last change that was taken; 0 before the first."""
        return self._facts.cursor

    def take(self, changes: Iterable[Change]) -> int:
        """Take changes of the ledger, in its order; those taken before are passed over. How many messages it made."""
        with self._lock:
            now = self._clock.now()
            news = [change for change in changes if change.seq > self._facts.cursor]
            told_before = [change for change in news if change.at <= self._facts.lost_until]
            if told_before:
                self._situation = deciding.catch_up(self._situation, told_before, now, self._config, self._correlation)
                news = [change for change in news if change.at > self._facts.lost_until]
            cursor = max((change.seq for change in (*told_before, *news)), default=self._facts.cursor)
            self._facts = msgspec.structs.replace(self._facts, cursor=cursor)
            return self._decide(news, now)

    def correlate(self, correlation: Correlation) -> None:
        """From now on findings are joined by this."""
        with self._lock:
            self._correlation = correlation

    def tick(self) -> int:
        """To be called now and then (every few seconds): reminders, ends of bursts; a disk that has room again."""
        with self._lock:
            now = self._clock.now()
            made = self._decide((), now)
            if not 0 <= now - self._pruned < _PRUNE_SECONDS:
                self._store.prune(now - self._config.keep_days * 86400)
                self._pruned = now
            return made

    def _decide(self, changes: Iterable[Change], now: float) -> int:
        self._situation, tells = deciding.decide(self._situation, changes, now, self._config, self._correlation)
        self._queue(tells)
        self._save(now)
        return len(tells)

    def _queue(self, tells: Iterable[Tell]) -> None:
        for tell in tells:
            self._outbox.add(tell, self._channels)
            _LOG.info("%s %s: message %d", tell.kind, tell.subject, tell.number)

    def _save(self, now: float) -> None:
        self._facts = msgspec.structs.replace(
            self._facts,
            storm=self._situation.storm,
            posts=self._situation.posts,
            storm_posts=self._situation.storm_posts,
            last_post=self._outbox.last,
        )
        if self._store.write(self._situation, self._facts, self._outbox.changed(), self._outbox.threaded(), now):
            self._outbox.stored()
        self._say("store", self._trouble_of_store())
        for name in NAMES:
            self._say(name, self._channels.missing.get(name, ""))
        for courier in self._couriers.values():
            courier.wake()

    def _say(self, about: str, trouble: str) -> None:
        """A trouble is a warning once, not every few seconds."""
        if trouble != self._said.get(about, ""):
            if trouble:
                _LOG.warning("alerts: %s: %s", about, trouble)
            else:
                _LOG.info("alerts: %s: works again", about)
        self._said[about] = trouble

    def acknowledge(self, incident: str, who: str, note: str) -> None:
        """Somebody looks after it. Raises UnknownIncident."""
        with self._lock:
            now = self._clock.now()
            self._situation, tells = deciding.acknowledge(self._situation, self._id(incident), who, note, now)
            self._queue(tells)
            self._save(now)

    def resolve(self, incident: str, who: str, note: str) -> None:
        """Somebody says it is over. Raises UnknownIncident."""
        with self._lock:
            now = self._clock.now()
            self._situation = deciding.resolve(self._situation, self._id(incident), who, note, now)
            self._decide((), now)

    def _id(self, given: str) -> str:
        """The whole id, from its first characters if only one incident begins so."""
        found = [key for key in self._situation.incidents if key.startswith(given)] if given else []
        return found[0] if len(found) == 1 else given

    def incidents(self) -> list[dict[str, Any]]:
        """All incidents of the record, the newest first, each with its messages, as `muster incidents` shows them."""
        with self._lock:
            return described(self._situation, self._outbox.open(), self._store.reading())

    def going_on(self) -> list[Incident]:
        """The incidents that are open or acknowledged."""
        with self._lock:
            return [incident for incident in self._situation.incidents.values() if not incident.over]

    def counts(self) -> Mapping[str, int]:
        """How many incidents go on, by severity."""
        return Counter(str(incident.severity) for incident in self.going_on())

    def state(self) -> AlertState:
        """The queue and what is wrong with it."""
        with self._lock:
            waiting = self._outbox.open()
            oldest = min((post.at for post in waiting), default=None)
            troubles = [self._trouble_of_store()]
            troubles += [f"{name}: {why}" for name, why in sorted(self._channels.missing.items())]
            troubles += [f"{name}: {why}" for name, why in sorted(self._outbox.troubles().items())]
            return AlertState(
                waiting=len(waiting),
                oldest_seconds=max(0.0, self._clock.now() - oldest) if oldest is not None else 0.0,
                sent=dict(self._facts.sent),
                trouble="; ".join(filter(None, troubles)),
            )

    def _trouble_of_store(self) -> str:
        if self._store.trouble:
            return self._store.trouble
        aside = self._store.set_aside
        return f"the record was damaged: kept as {aside}, a new one begun" if aside else ""

    def start(self) -> None:
        """Begin to deliver."""
        for courier in self._couriers.values():
            courier.start()

    def reload(self, config: AlertsConfig, credentials: Credentials) -> None:
        """Go on with a new configuration; what was refused is tried again at once."""
        made = self._make(config, credentials)
        with self._lock:
            now = self._clock.now()
            self._config, self._channels = config, made
            self._outbox.awake(now, made.senders)
            self._save(now)

    def close(self) -> None:
        """End delivery after the requests under way and let the file go."""
        for courier in self._couriers.values():
            courier.stop(_STOP_SECONDS)
        with self._lock:
            self._store.close()

    # What the couriers ask (delivery.Queue).

    def sender(self, channel: str) -> Sender | None:
        """How to send to the channel; None while it is not set up."""
        return self._channels.senders.get(channel)

    def next(self, channel: str) -> tuple[Post | None, Thread | None, float | None]:
        """What is due in the channel, and the thread it belongs in; else the seconds until something is."""
        with self._lock:
            post, left = self._outbox.due(channel, self._clock.now())
            sender = self.sender(channel)
            thread = self._outbox.thread(post, sender.asked) if post and sender else None
            return post, thread, left

    def begin(self, post: Post) -> Post:
        """Write down that it is about to be sent."""
        with self._lock:
            now = self._clock.now()
            begun = self._outbox.begin(post, now)
            self._save(now)
            return begun

    def settle(self, post: Post, outcome: Outcome) -> None:
        """Write down what became of it."""
        with self._lock:
            now = self._clock.now()
            sender = self.sender(post.channel)
            after = self._outbox.settle(post, outcome, sender.asked if sender else "", now, self._jitter())
            if after.state is PostState.SENT:
                sent = self._facts.sent
                self._facts = msgspec.structs.replace(
                    self._facts, sent={**sent, post.channel: sent.get(post.channel, 0) + 1}
                )
            self._say(f"message to {post.channel}", "" if after.finished else after.trouble)
            self._save(now)
