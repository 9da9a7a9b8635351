"""Is a silence a hang? Looks and the job's habits go in; the answer is a blame, or patience and why.

A silence is a hang when it is longer than this job's habit allows and a second look some seconds later finds the guilty
ranks doing the very same thing. What cannot resolve by itself (a stopped rank, a rank that is gone, ranks in different
collectives) does not need the habit of a long phase to be over. Where stacks cannot be read or do move, patience is
longer and the answer less sure.
"""

import re
from collections.abc import Sequence

import msgspec

from daemons.supervisor.blame import Blame, blame, frozen
from daemons.supervisor.config import RunConfig
from daemons.supervisor.progress import FLOOR_SECONDS, Stillness, phase_of
from daemons.supervisor.snapshot import Look, RankLook

# Two looks confirm one another when they are so far apart.
CONFIRM_SECONDS = 4.5
# Stacks that move are a sign of life, stacks that cannot be read are none of death: so many limits of patience.
_MOVING_LIMITS = 30.0
_UNREADABLE_LIMITS = 3.0
# All ranks at one place of their own, and none waits for another: a slow piece of work looks the same.
_TOGETHER_LIMITS = 6.0

_STACK_PHASES = (
    (
        "compile",
        re.compile(r"torch/(_dynamo|_inductor|_functorch|fx/)|/triton/(compiler|runtime)|torch/utils/cpp_extension"),
    ),
    ("checkpoint", re.compile(r"torch/distributed/checkpoint/|torch/serialization\.py|safetensors/")),
)
_USER_PHASES = (
    ("eval", re.compile(r"eval|valid", re.IGNORECASE)),
    ("checkpoint", re.compile(r"checkpoint|ckpt|save", re.IGNORECASE)),
    ("compile", re.compile(r"compil|warm_?up", re.IGNORECASE)),
)
# A function that holds the whole loop says nothing of what is done at the moment.
_WHOLE_LOOP = re.compile(r"train|fit|^_*main|^run$", re.IGNORECASE)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """blame: None while it may still be fine. why: one sentence for people."""

    blame: Blame | None = None
    why: str = ""


def stack_phase(look: RankLook) -> str:
    """The phase that a rank's stack shows where the job declares none; "train" when it shows no other."""
    if look.stack == [] and not look.gone:
        return "teardown"  # the interpreter is on its way out: threads, libraries and atexit handlers take their time
    for frame in look.stack or ():
        for phase, pattern in _STACK_PHASES:
            if pattern.search(frame.file):
                return phase
        if frame.users and not _WHOLE_LOOP.search(frame.function):
            for phase, pattern in _USER_PHASES:
                if pattern.search(frame.function):
                    return phase
    return "train"


def judge(still: Stillness, looks: Sequence[Look], world: int, config: RunConfig) -> Judgement:
    """The judgement on a silence. looks: of this silence only, oldest first."""
    if not looks or still.paused or still.seconds < FLOOR_SECONDS:
        return Judgement(why="not still for long")
    last = looks[-1]
    found = blame(last, world)
    earlier = next((look for look in reversed(looks) if last.at - look.at >= CONFIRM_SECONDS), None)
    if earlier is None:
        return Judgement(why="waiting for a second look")
    before = blame(earlier, world)
    if found.hard and (before.ranks, before.doing) == (found.ranks, found.doing):
        return Judgement(blame=found, why=found.words)
    limit = max(still.limit, _inferred_limit(last, found, still, config))
    same = frozen(earlier, last, found.ranks or sorted(last.ranks))
    patience = limit * (1.0 if same else _UNREADABLE_LIMITS if same is None else _MOVING_LIMITS)
    if same and len(found.ranks) == len(last.ranks) > 1 and found.doing in ("python", "data", "lock", "gpu"):
        patience = limit * _TOGETHER_LIMITS
    if still.seconds < patience:
        return Judgement(why=f"{still.seconds:.0f} s still, {patience:.0f} s allowed")
    sure = found.sure if same else found.sure * 0.5
    return Judgement(blame=msgspec.structs.replace(found, sure=round(sure, 2)), why=found.words)


def _inferred_limit(look: Look, found: Blame, still: Stillness, config: RunConfig) -> float:
    """The grace of a long phase in which the guilty (or, with none, anybody) is seen to be, else 0."""
    if still.phase not in ("train", "start"):
        return 0.0
    seen = [look.ranks[rank] for rank in (found.ranks or look.ranks) if rank in look.ranks]
    phases = {stack_phase(rank) for rank in seen if phase_of(rank.phases) == "train"}
    graces = {"compile": config.compile_grace, "eval": config.eval_grace, "checkpoint": config.checkpoint_grace}
    graces["teardown"] = config.checkpoint_grace
    return max((graces.get(phase, 0.0) for phase in phases), default=0.0)


def next_look(still: Stillness, last: float | None, now: float, start: float) -> bool:
    """Whether it is time for a deep look. last: when the latest of this silence was. start: when the silence began.

    The first comes early enough for a second one to confirm it when the limit is reached; in a long grace they become
    rarer, since each costs a rank some milliseconds.
    """
    limit = max(FLOOR_SECONDS, still.limit)
    first = max(4.5, limit - 5.5) if still.begun and still.phase == "train" else 4.5
    if still.seconds < first:
        return False
    if last is None:
        return True
    pause = 2.5 if still.seconds <= limit + 10.0 and limit < 120.0 else max(2.5, still.seconds / 4)
    return now - last >= pause
