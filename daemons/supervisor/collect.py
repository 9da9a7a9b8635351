"""Collects what one host knows of a job: cheap samples every second, a deep look on request."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from daemons.supervisor import network, procfs, stacks
from daemons.supervisor.flight import ask, flight, reductions, sequence
from daemons.supervisor.frames import Frame, innermost_users
from daemons.supervisor.notes import RankNote, hook_errors, rank_notes
from daemons.supervisor.snapshot import Flight, HostSample, RankLook, RankSample, WorkerLook
from trainer.beat import muster_beat

# The process tree is walked again at most this often once all ranks are known: a walk reads every process's stat.
_WALK_SECONDS = 5.0
_WORKERS_READ = 8  # data-loading workers of one rank whose stacks are read in a look


class Collector:
    """The eyes of one host."""

    def __init__(
        self, host: str, scratch: Path, processes: Callable[[], list[int]], tell: Callable[[str], None]
    ) -> None:
        self.ranks: dict[int, procfs.RankProcess] = {}
        self.raw_flights: dict[int, bytes] = {}
        self.owners: dict[int, int] = {}
        self._host = host
        self._hook = scratch / "hook"
        self._beat = scratch / "beat"
        self._pause = scratch / "paused"
        self._processes = processes
        self._tell = tell
        self._told: set[str] = set()
        self._walked = -1e9
        self._notes: dict[int, RankNote] = {}
        self._turn = 0
        self._cpu: dict[int, tuple[float, float]] = {}
        self._environments: dict[int, dict[str, str]] = {}

    def sample(self, now: float, output_age: float) -> HostSample:
        """One cheap look at every rank."""
        self._find(now)
        beats = muster_beat.read(self._beat)
        boot = muster_beat.boot_clock()
        ranks = []
        for rank, found in self.ranks.items():
            process = procfs.process(found.pid)
            if process is None or process.state in "ZX":
                self._walked = -1e9  # something ended: look for what has taken its place
                continue
            ranks.append(_sample(found, process, beats.get(rank), boot))
        return HostSample(
            host=self._host,
            ranks=ranks,
            collectives=self._collectives(),
            output_age=output_age,
            paused=self._pause.exists(),
        )

    def _find(self, now: float) -> None:
        """Find the ranks among the job's processes."""
        known = self.ranks and all(procfs.process(r.pid) for r in self.ranks.values())
        if known and now - self._walked < _WALK_SECONDS:
            return
        self._walked = now
        processes = [found for pid in self._processes() if (found := procfs.process(pid)) is not None]
        self._notes = rank_notes(self._hook)
        registered = {pid: note.rank for pid, note in self._notes.items()}
        known_pids = {item.pid for item in processes}
        self._environments = {pid: env for pid, env in self._environments.items() if pid in known_pids}
        for item in processes:
            # Between fork and exec a process shows its parent's environment: read again until it has a rank.
            if procfs.rank_of(self._environments.get(item.pid, {})) is None:
                self._environments[item.pid] = procfs.environment(item.pid)
        self.ranks |= procfs.ranks(processes, self._environments, registered)
        self.owners |= {pid: rank for rank, found in self.ranks.items() for pid in (found.pid, *found.children)}
        for error in hook_errors(self._hook):
            self._once(f"a rank cannot be asked while it hangs: {error}")

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)

    def _collectives(self) -> dict[str, int]:
        """Sequence numbers of one rank a time, in turn: if one advances, all do."""
        served = [note for note in self._served().values() if note.socket]
        if not served:
            return {}
        self._turn += 1
        return sequence(served[self._turn % len(served)].socket) or {}

    def _served(self) -> dict[int, RankNote]:
        """The notes of the ranks there are now, by rank; read again while some have no socket yet."""
        found = {rank: self._notes[r.pid] for rank, r in self.ranks.items() if r.pid in self._notes}
        if len(found) < len(self.ranks) or any(not note.socket for note in found.values()):
            self._notes = rank_notes(self._hook)
            found = {rank: self._notes[r.pid] for rank, r in self.ranks.items() if r.pid in self._notes}
        return found

    def recurrences(self) -> dict[str, list[float]]:
        """When each reduction came round, by the flight recorder of one rank."""
        served = [note for note in self._served().values() if note.socket]
        if not served:
            return {}
        found = flight(ask(served[self._turn % len(served)].socket, "fr_trace_json"))
        return reductions([found]) if found else {}

    def look(self) -> dict[int, RankLook]:
        """Every rank in depth, all at about the same time."""
        self._walked = -1e9
        self._find(time.monotonic())
        notes = self._served()
        beats = muster_beat.read(self._beat)
        with ThreadPoolExecutor(max_workers=4) as pool:
            flights = list(pool.map(lambda rank: self._flight(rank, notes.get(rank)), self.ranks))
            looks = list(pool.map(lambda found: self._rank(found, notes.get(found.rank)), self.ranks.values()))
        answers: dict[int, RankLook] = {}
        for look, recorder in zip(looks, flights, strict=True):
            phases = beats[look.rank].phases if look.rank in beats else ()
            answers[look.rank] = msgspec.structs.replace(look, flight=recorder, phases=phases)
        return answers

    def _flight(self, rank: int, note: RankNote | None) -> Flight | None:
        body = ask(note.socket, "fr_trace_json") if note and note.socket else None
        if body:
            self.raw_flights[rank] = body
        return flight(body)

    def _rank(self, found: procfs.RankProcess, note: RankNote | None) -> RankLook:
        process = procfs.process(found.pid)
        if process is None or process.state in "ZX" or process.started != found.started:
            return RankLook(rank=found.rank, host=self._host, pid=found.pid, gone=True)
        activity = self._activity(found.pid)
        connections = network.tables(found.pid)
        read = stacks.read(found.pid, note, self._hook)
        if read.main is None:
            self._once(f"rank {found.rank}: no Python stack: {read.trouble}")
        return RankLook(
            rank=found.rank,
            host=self._host,
            pid=found.pid,
            activity=activity,
            stack=read.main,
            threads=read.text,
            workers=self._workers(found),
            lost_peers=network.lost_peers(connections),
            addresses=tuple(sorted(network.addresses(connections, 1))),
            peers=tuple(sorted(network.addresses(connections, 2))),
            source=stacks.source_line(innermost_users(read.main or [])),
        )

    def _workers(self, found: procfs.RankProcess) -> list[WorkerLook]:
        looks = []
        for pid in found.children[:_WORKERS_READ]:
            process = procfs.process(pid)
            if process is not None and process.name.startswith(("python", "pt_data", "pt_main")):
                stack: list[Frame] = stacks.by_pyspy(pid).main or []
                looks.append(WorkerLook(pid=pid, activity=self._activity(pid), stack=stack))
        return looks

    def _activity(self, pid: int) -> procfs.Activity:
        """What a process is at, with the share of a core that it has used since it was last asked for."""
        found, now = procfs.activity(pid), time.monotonic()
        before = self._cpu.get(pid)
        self._cpu[pid] = (now, found.cpu_seconds)
        if before is None or now - before[0] < 0.5:
            return found
        busy = (found.cpu_seconds - before[1]) / (now - before[0])
        return msgspec.structs.replace(found, busy=round(busy, 3))

    @property
    def pids(self) -> Mapping[int, int]:
        """Rank -> pid of every rank that was ever seen."""
        return {rank: found.pid for rank, found in self.ranks.items()}


def _sample(
    found: procfs.RankProcess, process: procfs.Process, beat: muster_beat.Record | None, boot: float
) -> RankSample:
    # A wrapper may be the rank as the launcher sees it, and the training process its child.
    if beat is None or beat.pid not in (found.pid, *found.children):
        return RankSample(
            rank=found.rank,
            pid=found.pid,
            started=found.started,
            state=process.state,
            cpu_seconds=process.cpu_seconds,
            world_size=found.world_size,
        )
    return RankSample(
        rank=found.rank,
        pid=found.pid,
        started=found.started,
        state=process.state,
        cpu_seconds=process.cpu_seconds,
        world_size=found.world_size or beat.world_size,
        step=-1 if beat.step is None else beat.step,
        phases=beat.phases,
        step_age=boot - beat.step_changed,
        phase_age=boot - beat.phase_changed,
        step_seconds=beat.step_seconds,
        data_seconds=beat.data_seconds,
        loss=beat.loss,
    )
