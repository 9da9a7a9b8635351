"""Is the job advancing, and how long may it stand still? Learnt from this job's own steps, phase by phase.

Pure: samples and the time go in. A job advances when any rank's step or phase changes, or when any process group is
asked for another collective. How long it may be still is learnt from how long it has been before; phases that are known
to be long have a grace of their own; nothing is learnt from a silence that was called stuck, nor across a restart.
"""

import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from daemons.supervisor.config import RunConfig
from daemons.supervisor.snapshot import HostSample, RankSample

# No silence shorter than this is ever called stuck: below it lie garbage collections, logs and small checkpoints.
FLOOR_SECONDS = 10.0
# A step this many times the median is not a slow step any more.
MEDIANS = 4.0
# k of median + k·MAD; 1.4826·MAD estimates one standard deviation of a normal spread.
_DEVIATIONS = 8 * 1.4826
_WINDOW = 64
# Steps (or turns of a repeating collective) after which training has begun and the grace of the start is over.
BEGUN = 3
# Looks further apart than this mean that the supervisor itself was stopped: that time is nobody's silence.
_GAP_SECONDS = 5.0
# A silence is learnt as part of a step only up to this share of what would have been called stuck.
_LEARN_SHARE = 0.8

LONG_PHASES = ("start", "compile", "eval", "checkpoint", "teardown")
# What users call their phases. "train", "data", "forward" and whatever else is not listed is training.
_PHASE_WORDS = (
    ("compile", ("compil", "warmup", "warm_up", "autotune")),
    ("checkpoint", ("checkpoint", "ckpt", "save", "snapshot")),
    ("eval", ("eval", "valid", "test", "generate", "benchmark")),
    ("start", ("start", "setup", "init", "resume", "restore")),
    ("teardown", ("teardown", "shutdown", "finish", "cleanup")),
)


class Stillness(msgspec.Struct, frozen=True, kw_only=True):
    """seconds: since the job last advanced. limit: how long it may be. phase: which habit the limit comes from.

    begun: whether training steps have been seen. paused: nobody is to be blamed for this silence.
    """

    seconds: float
    limit: float
    phase: str
    begun: bool
    paused: bool = False
    step: int = -1
    median_step: float = 0.0


def phase_of(names: Sequence[str]) -> str:
    """The habit that a stack of phase names belongs to; the innermost known long one counts."""
    for name in reversed(names):
        lowered = name.lower()
        for phase, words in _PHASE_WORDS:
            if any(word in lowered for word in words):
                return phase
    return "train"


class Progress:
    """What one attempt has done so far."""

    def __init__(self, config: RunConfig, now: float) -> None:
        self._config = config
        self._incarnations: dict[int, tuple[int, int]] = {}
        self._seen = now
        self._forget(now)

    def _forget(self, now: float) -> None:
        self._advanced = now
        self._stepped = now
        self._marks: dict[int, tuple[int, tuple[str, ...]]] = {}
        self._collectives: dict[str, int] = {}
        self._steps: deque[float] = deque(maxlen=_WINDOW)
        self._gaps: deque[float] = deque(maxlen=_WINDOW)
        self._turns = 0
        self._turn_seconds = 0.0
        self._first_step: int | None = None
        self._step = -1
        self._long_since = False

    @property
    def begun(self) -> bool:
        """Whether training is under way."""
        steps = self._step - self._first_step if self._first_step is not None else 0
        return steps >= BEGUN or self._turns >= BEGUN

    def turned(self, turns: int, seconds: float) -> None:
        """The flight recorder shows that a reduction has come round so often, at that distance in the median."""
        if not self.begun and turns >= BEGUN:
            self._gaps.clear()  # silences of the start say nothing of the steps
        self._turns = max(self._turns, turns)
        self._turn_seconds = seconds

    def see(self, now: float, hosts: Sequence[HostSample]) -> Stillness:
        """Take a look at all hosts into account."""
        if now - self._seen > _GAP_SECONDS:
            self._shift(now - self._seen)
        self._seen = now
        ranks = [rank for host in hosts for rank in host.ranks]
        self._restarted(now, ranks)
        paused = any(host.paused for host in hosts) or _all_stopped(ranks)
        if paused:
            self._shift(now - max(self._advanced, self._stepped))
        else:
            self._note(now, hosts, ranks)
        phase = self.phase(ranks)
        return Stillness(
            seconds=now - self._still_since(phase),
            limit=self.limit(phase),
            phase=phase,
            begun=self.begun,
            paused=paused,
            step=self._step,
            median_step=self._median(),
        )

    def _still_since(self, phase: str) -> float:
        """With beats it is steps that count in training, so that an inner phase that flickers masks nothing."""
        return self._stepped if self._step >= 0 and phase == "train" else self._advanced

    def phase(self, ranks: Iterable[RankSample]) -> str:
        """What the job is at: the longest-lasting habit that any rank has declared, "start" before training began."""
        declared = {phase_of(rank.phases) for rank in ranks if rank.phases}
        for phase in ("checkpoint", "eval", "compile", "start", "teardown"):
            if phase in declared:
                return phase
        return "train" if self.begun else "start"

    def limit(self, phase: str) -> float:
        """Seconds for which the job may be still in that phase."""
        graces = {
            "start": self._config.start_grace,
            "compile": self._config.compile_grace,
            "eval": self._config.eval_grace,
            "checkpoint": self._config.checkpoint_grace,
            "teardown": self._config.checkpoint_grace,
        }
        return graces.get(phase) or self._train_limit()

    def _train_limit(self) -> float:
        limits = [FLOOR_SECONDS, MEDIANS * self._turn_seconds]
        if len(self._steps) >= BEGUN:
            median = statistics.median(self._steps)
            mad = statistics.median(abs(step - median) for step in self._steps)
            limits += [MEDIANS * median, median + _DEVIATIONS * mad]
        elif len(self._gaps) >= BEGUN:
            # Collectives come in bursts: the longer silences between them are the steps.
            limits.append(MEDIANS * statistics.quantiles(self._gaps, n=10)[-1])
        return max(limits)

    def _median(self) -> float:
        if len(self._steps) >= BEGUN:
            return statistics.median(self._steps)
        return self._turn_seconds

    def _shift(self, seconds: float) -> None:
        self._advanced += seconds
        self._stepped += seconds

    def _restarted(self, now: float, ranks: Iterable[RankSample]) -> None:
        """Ranks that a launcher has started anew bring nothing of their predecessors' with them."""
        for rank in ranks:
            was = self._incarnations.get(rank.rank)
            self._incarnations[rank.rank] = (rank.pid, rank.started)
            if was is not None and was != (rank.pid, rank.started):
                self._forget(now)

    def _note(self, now: float, hosts: Sequence[HostSample], ranks: Sequence[RankSample]) -> None:
        advanced = self._collectives_moved(hosts)
        for rank in ranks:
            mark = (rank.step, rank.phases)
            if mark != (-1, ()) and self._marks.get(rank.rank) != mark:
                self._marks[rank.rank] = mark
                advanced = True
        self._long_since |= any(phase_of(rank.phases) != "train" for rank in ranks if rank.phases)
        self._note_step(now, ranks)
        if advanced:
            self._learn_gap(now)
            self._advanced = now

    def _note_step(self, now: float, ranks: Sequence[RankSample]) -> None:
        highest = max((rank.step for rank in ranks), default=-1)
        if highest <= self._step:
            return
        self._first_step = highest if self._first_step is None else self._first_step
        age = min(rank.step_age for rank in ranks if rank.step == highest)
        self._learn_step(now - age, highest - self._step if self._step >= 0 else 0)
        self._step = highest

    def _learn_step(self, at: float, steps: int) -> None:
        """Learn what a step takes, unless something long lay within or it was nearly called stuck."""
        if steps and not self._long_since:
            seconds = max(0.0, (at - self._stepped) / steps)
            if len(self._steps) < BEGUN or seconds <= self._train_limit() * _LEARN_SHARE:
                self._steps.append(seconds)
        self._stepped = max(self._stepped, at)
        self._long_since = False

    def _learn_gap(self, now: float) -> None:
        gap = now - self._advanced
        if not self.begun or gap <= self._train_limit() * _LEARN_SHARE:
            self._gaps.append(gap)

    def _collectives_moved(self, hosts: Sequence[HostSample]) -> bool:
        moved = False
        for host in hosts:
            for group, number in host.collectives.items():
                if number > self._collectives.get(group, -1):
                    moved |= group in self._collectives or number > 0
                    self._collectives[group] = number
        return moved


def _all_stopped(ranks: Sequence[RankSample]) -> bool:
    """Every rank is stopped by a signal: a scheduler or an operator has suspended the whole job."""
    return len(ranks) > 1 and all(rank.state in "Tt" for rank in ranks)


def turns(created: Mapping[str, Sequence[float]]) -> tuple[int, float]:
    """How often reductions have come round, and the seconds between two: the length of a step.

    created: shape of a reduction (operation, sizes, types) -> when each was enqueued. Gradients are reduced in every
    step, so this tells that training is under way without a word from the job. Layers of one shape come round several
    times a step, so the rarest of those that repeat is the step.
    """
    repeated = [times for times in created.values() if len(times) >= BEGUN]
    if not repeated:
        return max((len(times) for times in created.values()), default=0), 0.0
    seconds = [statistics.median(later - earlier for earlier, later in pairwise(times)) for times in repeated]
    return max(map(len, repeated)), max(seconds)
