"""Looks at a running job once a second."""

from pathlib import Path
from typing import TYPE_CHECKING

from daemons.supervisor import procfs
from daemons.supervisor.notes import rank_notes
from daemons.supervisor.record import Verdict
from trainer.beat import muster_beat

if TYPE_CHECKING:
    from daemons.supervisor.launch import Job
    from daemons.supervisor.logs import Follower


class Watch:
    """What is seen of one attempt."""

    def __init__(self, scratch: Path, furthest: int) -> None:
        self.stuck: Verdict | None = None
        self.pids: dict[int, int] = {}
        self.furthest = furthest
        self._before = furthest
        self._scratch = scratch
        self._job: Job | None = None

    @property
    def progressed(self) -> bool:
        """Whether the job got further than in any attempt before."""
        return self.furthest > self._before

    def begin(self, job: "Job", follower: "Follower", path: Path | None, rank_logs: Path | None) -> None:
        self._job = job

    def look(self, now: float) -> bool:
        """One look; True when the job is stuck and to be ended."""
        assert self._job is not None
        processes = [found for pid in self._job.processes() if (found := procfs.process(pid))]
        registered = {note.pid: note.rank for note in rank_notes(self._scratch / "hook").values()}
        environments = {item.pid: procfs.environment(item.pid) for item in processes}
        self.pids |= {r.rank: r.pid for r in procfs.ranks(processes, environments, registered).values()}
        steps = [r.step for r in muster_beat.read(self._scratch / "beat").values() if r.step is not None]
        self.furthest = max([self.furthest, *steps])
        return False

    def killed_for_memory(self) -> list[int]:
        return []
