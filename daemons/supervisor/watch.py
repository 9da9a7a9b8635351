"""Looks at a running job once a second, and more closely when it stands still."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from daemons.supervisor.blame import Blame, listed, usual_place
from daemons.supervisor.collect import Collector
from daemons.supervisor.config import RunConfig
from daemons.supervisor.judge import Judgement, judge, next_look
from daemons.supervisor.kernel import KernelLog, killed_for_memory
from daemons.supervisor.meeting import LOST_SECONDS, Follower, Leader, Order
from daemons.supervisor.progress import Progress, Stillness, turns
from daemons.supervisor.record import Verdict
from daemons.supervisor.snapshot import HostSample, Look, RankLook

if TYPE_CHECKING:
    from daemons.supervisor.evidence import Evidence
    from daemons.supervisor.launch import Job
    from daemons.supervisor.logs import Follower as LogFollower
    from daemons.supervisor.report import Reporter


# How long the other hosts may take to answer when a closer look is wanted.
_ANSWER_SECONDS = 4.0
# How often the flight recorder is asked how long a step takes.
_RECURRENCE_SECONDS = 5.0


class Watch:
    """What is seen of one attempt. `stuck`: the verdict while it stands."""

    def __init__(
        self,
        host: str,
        scratch: Path,
        config: RunConfig,
        furthest: int,
        tell: Callable[[str], None],
        evidence: "Evidence",
        reporter: "Reporter",
        meeting: "Leader | Follower | None" = None,
    ) -> None:
        self.stuck: Verdict | None = None
        self.furthest = furthest
        self.collector: Collector | None = None
        self._host = host
        self._before = furthest
        self._scratch = scratch
        self._config = config
        self._tell = tell
        self._evidence = evidence
        self._reporter = reporter
        self._meeting = meeting
        self._attempt = 0
        self._lost: set[str] = set()
        self._still: Stillness | None = None
        self._ranks_of: dict[str, list[int]] = {}
        self._pending: tuple[int, float, dict[int, RankLook]] | None = None
        self._kernel = KernelLog()
        self._follower: LogFollower | None = None
        self._progress: Progress | None = None
        self._looks: list[Look] = []
        self._since = 0.0
        self._stuck_at = 0.0
        self._writer: threading.Thread | None = None
        self._world = 0
        self._asked = -1e9
        self._was_paused = False

    @property
    def progressed(self) -> bool:
        """Whether the job got further than in any attempt before."""
        return self.furthest > self._before

    @property
    def pids(self) -> dict[int, int]:
        """Rank -> pid of every rank that was seen."""
        return dict(self.collector.pids) if self.collector else {}

    def begin(self, job: "Job", follower: "LogFollower", path: Path | None, attempt: int) -> None:
        """Begin with an attempt that has just been launched."""
        self._follower = follower
        self._attempt = attempt
        self.collector = Collector(self._host, self._scratch, job.processes, self._tell)
        self._evidence.begin(path, follower, self.collector)
        if isinstance(self._meeting, Leader):
            self._meeting.order = Order(look=self._meeting.order.look)

    def look(self, now: float) -> bool:
        """One look; True when the job is stuck and is to be ended now."""
        assert self.collector is not None
        assert self._follower is not None
        sample = self.collector.sample(now, now - self._follower.last_output)
        if isinstance(self._meeting, Follower):
            return self._report(now, sample, self._meeting)
        others = self._meeting.samples(self._attempt) if self._meeting else []
        end = self.see(now, [sample, *others])
        if self._meeting is not None:
            self._miss(now, self._meeting)
            self._meeting.order = structs.replace(self._meeting.order, verdict=self.stuck, end=end)
        return end

    def _report(self, now: float, sample: HostSample, leader: "Follower") -> bool:
        """Tell the leader, and do what it says; judge alone while it does not answer."""
        leader.say(self._attempt, sample)
        if leader.silent > LOST_SECONDS:
            if not leader.order.over:
                said = f"the leader of this job's supervisors does not answer: {leader.trouble}; judging alone"
                self._once_lost("leader", said)
            return self.see(now, [sample])
        self._lost.discard("leader")
        self._pace(now, [sample])
        order = leader.order
        if order.verdict is not None and self.stuck is None:
            self._tell(f"the leader says: {order.verdict.summary}")
        self.stuck = order.verdict
        return order.end

    def _once_lost(self, who: str, text: str) -> None:
        if who not in self._lost:
            self._lost.add(who)
            self._tell(text)

    def _miss(self, now: float, meeting: Leader) -> None:
        """Tell of supervisors that have fallen silent; a job that stands still as well has lost their hosts."""
        for host, seconds in meeting.lost().items():
            said = f"the supervisor on {host} has said nothing for {seconds:.0f} s: the host or its network is gone"
            self._once_lost(host, said)
            if self.stuck is None and self._still is not None and self._still.seconds > LOST_SECONDS:
                words = f"the supervisor on {host} is silent and the job stands still"
                found = Blame(
                    ranks=self._ranks_of.get(host, []),
                    doing="network",
                    frame=usual_place(self._looks[-1]) if self._looks else None,
                    sure=0.8,
                    words=words,
                    host=host,
                )
                self._convict(now, self._still, Judgement(blame=found))

    def see(self, now: float, hosts: list[HostSample]) -> bool:
        """Take what was sampled on all hosts into account."""
        still = self._pace(now, hosts)
        assert self._progress is not None
        if now - self._asked >= _RECURRENCE_SECONDS and self.collector is not None and not still.paused:
            self._asked = now
            self._progress.turned(*turns(self.collector.recurrences()))
        self._tell_pause(still)
        if still.seconds < 2.0 or still.paused:
            self._goes_on(now)
            self._looks.clear()
            self._pending = None
            return False
        if self.stuck is not None:
            return self._due(now)
        if any(host.ranks for host in hosts):
            self._consider(now, still)
        return False

    def _pace(self, now: float, hosts: list[HostSample]) -> Stillness:
        if self._progress is None:
            self._progress = Progress(self._config, now)
        self._still = still = self._progress.see(now, hosts)
        self.furthest = max(self.furthest, still.step)
        self._world = max([self._world, *(rank.world_size for host in hosts for rank in host.ranks)])
        self._ranks_of |= {host.host: [rank.rank for rank in host.ranks] for host in hosts if host.ranks}
        return still

    def _tell_pause(self, still: Stillness) -> None:
        if still.paused != self._was_paused:
            self._was_paused = still.paused
            self._tell("the whole job is paused: its silence is nobody's fault" if still.paused else "the job goes on")

    def _consider(self, now: float, still: Stillness) -> None:
        if self._pending is not None:
            self._gather(now, still)
            return
        last = self._looks[-1].at if self._looks else None
        if not next_look(still, last, now, self._since):
            return
        assert self.collector is not None
        number = self._meeting.ask() if isinstance(self._meeting, Leader) else 0
        self._pending = (number, now, self.collector.look())
        self._gather(now, still)

    def _gather(self, now: float, still: Stillness) -> None:
        """A look is whole when every host that still speaks has answered, or has had its time."""
        assert self._pending is not None
        number, asked, ranks = self._pending
        if isinstance(self._meeting, Leader):
            others, whole = self._meeting.answers(number)
            if not whole and now - asked < _ANSWER_SECONDS:
                return
            ranks = others | ranks
        self._pending = None
        self._looks = [*self._looks[-20:], Look(at=asked, ranks=ranks)]
        judgement = judge(still, self._looks, self._world, self._config)
        if judgement.blame is not None:
            self._convict(now, still, judgement)

    def _convict(self, now: float, still: Stillness, judgement: Judgement) -> None:
        assert judgement.blame is not None
        self._stuck_at = now
        self.stuck = self.verdict(judgement.blame, still)
        bundle = self._evidence.directory("stuck")
        told = self.sentence(judgement.blame, still, bundle)
        self._tell(told)
        if bundle is not None:
            self.stuck = _with_bundle(self.stuck, bundle)
        self._reporter.trouble(self.stuck, told)
        if bundle is not None:
            look, verdict = self._looks[-1] if self._looks else Look(at=now), self.stuck
            self._writer = threading.Thread(
                target=self._evidence.write, args=(bundle, look, verdict, still), name="evidence", daemon=True
            )
            self._writer.start()

    def verdict(self, found: Blame, still: Stillness) -> Verdict:
        """The blame in the words of the record."""
        guilty = self._looks[-1].ranks.get(found.ranks[0]) if found.ranks and self._looks else None
        frame = found.frame
        return Verdict(
            kind="stuck",
            cause=found.cause,
            ranks=found.ranks,
            host=found.host or (guilty.host if guilty else "") or self._host,
            file=frame.file if frame else "",
            line=frame.line if frame else 0,
            function=frame.function if frame else "",
            doing=found.doing,
            confidence=found.sure,
            detected_after_seconds=round(still.seconds, 1),
            summary=found.words,
        )

    def sentence(self, found: Blame, still: Stillness, bundle: Path | None) -> str:
        """One line for people."""
        who = listed(found.ranks) if found.ranks else "the job"
        where = f" in {found.frame.file}:{found.frame.line} {found.frame.function}()" if found.frame else ""
        others = f"; the others wait at {found.other.file}:{found.other.line}" if found.other and found.ranks else ""
        kept = f"; evidence: {bundle}" if bundle else ""
        return (
            f"{who} stuck{where} ({found.doing}): {found.words}{others}; {still.seconds:.1f} s without progress{kept}"
        )

    def _due(self, now: float) -> bool:
        """Whether a stuck job is to be ended: its time is over, and the evidence is kept or has had its time."""
        waited = now - self._stuck_at
        if waited < self._config.stuck_terminate_after:
            return False
        kept = self._writer is None or not self._writer.is_alive()
        return kept or waited >= self._config.evidence_seconds

    def _goes_on(self, now: float) -> None:
        if self.stuck is not None:
            told = f"the job goes on after {now - self._stuck_at + self.stuck.detected_after_seconds:.0f} s"
            self._tell(told)
            self.stuck = None
            self._reporter.well(told)

    def close(self) -> Verdict | None:
        """The attempt is over: the verdict that stands, once its evidence is written or has had its time."""
        if self._writer is not None:
            self._writer.join(self._config.evidence_seconds)
        return self.stuck

    def killed_for_memory(self) -> list[int]:
        """Ranks that the kernel's OOM killer ended, themselves or in a worker."""
        owners = self.collector.owners if self.collector else {}
        return killed_for_memory(self._kernel.lines(), owners)


def _with_bundle(verdict: Verdict, bundle: Path) -> Verdict:
    return structs.replace(verdict, bundle=str(bundle))
