"""Looks at a running job once a second, and more closely when it stands still."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from daemons.supervisor.blame import Blame, listed
from daemons.supervisor.collect import Collector
from daemons.supervisor.config import RunConfig
from daemons.supervisor.judge import Judgement, judge, next_look
from daemons.supervisor.kernel import KernelLog, killed_for_memory
from daemons.supervisor.progress import Progress, Stillness, turns
from daemons.supervisor.record import Verdict
from daemons.supervisor.snapshot import HostSample, Look

if TYPE_CHECKING:
    from daemons.supervisor.evidence import Evidence
    from daemons.supervisor.launch import Job
    from daemons.supervisor.logs import Follower
    from daemons.supervisor.report import Reporter


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
        self._kernel = KernelLog()
        self._follower: Follower | None = None
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

    def begin(self, job: "Job", follower: "Follower", path: Path | None, rank_logs: Path | None) -> None:
        """Begin with an attempt that has just been launched."""
        self._follower = follower
        self.collector = Collector(self._host, self._scratch, job.processes, self._tell)
        self._evidence.begin(path, follower, self.collector)

    def look(self, now: float) -> bool:
        """One look; True when the job is stuck and is to be ended now."""
        assert self.collector is not None
        assert self._follower is not None
        sample = self.collector.sample(now, now - self._follower.last_output)
        return self.see(now, [sample])

    def see(self, now: float, hosts: list[HostSample]) -> bool:
        """Take what was sampled on all hosts into account."""
        if self._progress is None:
            self._progress = Progress(self._config, now)
        still = self._progress.see(now, hosts)
        if now - self._asked >= _RECURRENCE_SECONDS and self.collector is not None and not still.paused:
            self._asked = now
            self._progress.turned(*turns(self.collector.recurrences()))
        self.furthest = max(self.furthest, still.step)
        self._world = max([self._world, *(rank.world_size for host in hosts for rank in host.ranks)])
        self._tell_pause(still)
        if still.seconds < 2.0 or still.paused:
            self._goes_on(now)
            self._looks.clear()
            return False
        if self.stuck is not None:
            return self._due(now)
        if any(host.ranks for host in hosts):
            self._consider(now, still)
        return False

    def _tell_pause(self, still: Stillness) -> None:
        if still.paused != self._was_paused:
            self._was_paused = still.paused
            self._tell("the whole job is paused: its silence is nobody's fault" if still.paused else "the job goes on")

    def _consider(self, now: float, still: Stillness) -> None:
        last = self._looks[-1].at if self._looks else None
        if not next_look(still, last, now, self._since):
            return
        assert self.collector is not None
        assert self._progress is not None
        look = Look(at=now, ranks=self.collector.look())
        self._looks = [*self._looks[-20:], look]
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
            look, verdict = self._looks[-1], self.stuck
            self._writer = threading.Thread(
                target=self._evidence.write, args=(bundle, look, verdict, still), name="evidence", daemon=True
            )
            self._writer.start()

    def verdict(self, found: Blame, still: Stillness) -> Verdict:
        """The blame in the words of the record."""
        guilty = self._looks[-1].ranks.get(found.ranks[0]) if found.ranks else None
        frame = found.frame
        return Verdict(
            kind="stuck",
            cause=found.cause,
            ranks=found.ranks,
            host=(guilty.host if guilty else "") or self._host,
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
    import msgspec

    return msgspec.structs.replace(verdict, bundle=str(bundle))
