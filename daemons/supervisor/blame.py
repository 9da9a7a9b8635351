"""Whose doing is it that a job stands still, where in the user's code, and at what.

Pure: looks go in, a blame comes out. The guilty rank is the one that does *not* wait in the collective in which the
others wait for it. In order: a rank stopped by a signal; a rank that is gone; a rank that is somewhere else than in
a collective; ranks that are in a collective which the others are not in (by the flight recorder, by majority, since the
first rank is no better witness than any other); the rank with the lowest sequence number; the rank whose stack stands
out; and when all wait in the same collective, the network between them.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from daemons.supervisor.doing import CAUSES, Place, at_what, place
from daemons.supervisor.frames import Frame
from daemons.supervisor.network import cut_off
from daemons.supervisor.record import Doing
from daemons.supervisor.snapshot import Collective, Flight, Look, RankLook

# Torch's own code that waits for other ranks, as it appears on a Python stack.
_WAITS = re.compile(
    r"torch/(distributed/(?!run|launch|elastic)|_C/_distributed|csrc/distributed)|deepspeed/comm|horovod/torch/mpi_ops"
)
# A backward pass waits for gradients of other ranks inside C++ (DDP), but it may as well compute.
_BACKWARD = re.compile(r"torch/autograd/graph\.py$")
_WAIT_SOURCE = re.compile(r"\.wait\(|\.synchronize\(|barrier\(|all_reduce|all_gather|broadcast|reduce_scatter")


class Blame(msgspec.Struct, frozen=True, kw_only=True):
    """ranks: the guilty ones. doing: at what. frame: where, in the user's code. other: where the others wait.

    host: of the guilty where no rank of it is seen.
    sure: how strong the evidence is, 0 to 1. hard: it cannot resolve by waiting, whatever the phase. words: why.
    """

    ranks: list[int]
    doing: Doing
    frame: Frame | None = None
    other: Frame | None = None
    sure: float = 0.5
    hard: bool = False
    words: str = ""
    host: str = ""

    @property
    def cause(self) -> str:
        """The taxonomy's name for it."""
        return CAUSES[self.doing]


def waits(look: RankLook) -> bool:
    """Whether a rank waits for others: by the frames between what it does and the user's code, or its recorder."""
    if look.gone or look.stack is None:
        return pending(look.flight)
    inner = look.stack[: next((i for i, frame in enumerate(look.stack) if frame.users), len(look.stack))]
    if any(_WAITS.search(frame.file) for frame in inner):
        return True
    idle = look.activity.state == "S"
    if any(_BACKWARD.search(frame.file) for frame in inner):
        return pending(look.flight) if look.flight is not None and look.flight.groups else idle
    return bool(idle and pending(look.flight) and _WAIT_SOURCE.search(look.source))


def pending(flight: Flight | None) -> bool:
    """Whether a rank has been asked for a collective that is not over."""
    return flight is not None and any(group.enqueued > group.completed for group in flight.groups.values())


def blame(look: Look, world: int) -> Blame:
    """The blame by one look at all ranks. world: how many ranks there should be, 0 when nobody has said."""
    ranks = look.ranks
    for rule in (_stopped, _cut_off, _missing, _elsewhere, _mismatched, _behind, _outlier):
        found = rule(ranks, world)
        if found is not None:
            return found
    return Blame(
        ranks=[],
        doing="network",
        frame=_common(ranks),
        sure=0.3,
        words="every rank waits in the same collective: no rank is behind, so what lies between them is",
    )


def _stopped(ranks: Mapping[int, RankLook], world: int) -> Blame | None:
    found = [rank for rank, look in ranks.items() if look.activity.state in ("T", "t") and not look.gone]
    if not found or len(found) == len(ranks) > 1:
        return None
    words = f"{listed(found)} stopped by a signal (SIGSTOP or a debugger)"
    return _of(ranks, found, "stopped", 0.98, words, hard=True)


def _cut_off(ranks: Mapping[int, RankLook], world: int) -> Blame | None:
    """Hosts that the others' connections have lost: what was sent to them is not acknowledged any more."""
    lost: dict[str, dict[str, int]] = {}
    addresses: dict[str, set[str]] = {}
    for look in ranks.values():
        lost.setdefault(look.host, {}).update(look.lost_peers)
        addresses.setdefault(look.host, set()).update(look.addresses)
    hosts = cut_off(lost, addresses, {look.host: set(look.peers) for look in ranks.values()})
    if not hosts:
        return None
    there = [rank for rank, look in ranks.items() if look.host == hosts[0]]
    others = f" (or {', '.join(hosts[1:3])})" if len(hosts) > 1 else ""
    words = f"nothing is acknowledged any more on connections with {hosts[0]}{others}"
    found = _of(ranks, there, "network", 0.9 if len(hosts) == 1 else 0.8, words, hard=True)
    return msgspec.structs.replace(found, host=hosts[0], frame=found.frame or _common(ranks))


def _missing(ranks: Mapping[int, RankLook], world: int) -> Blame | None:
    """Ranks that are gone while others wait for them."""
    gone = [rank for rank, look in ranks.items() if look.gone]
    if gone and any(waits(look) for look in ranks.values() if not look.gone):
        return _of(ranks, gone, "dead", 0.9, f"{listed(gone)} gone while the others wait", hard=True)
    absent = [rank for rank in range(world) if rank not in ranks]
    if absent and ranks and any(waits(look) for look in ranks.values()) and not _elsewhere(ranks, world):
        return _of(ranks, absent, "dead", 0.5, f"{listed(absent)} nowhere to be seen while the others wait")
    return None


def _elsewhere(ranks: Mapping[int, RankLook], world: int) -> Blame | None:
    """Ranks that are not in a collective while others are; or all of them, each where it is."""
    away = [rank for rank, look in ranks.items() if not waits(look) and look.stack is not None]
    if not away:
        return None
    behind = _behind(ranks, world)
    if behind is not None and set(behind.ranks) & set(away):
        away = [rank for rank in away if rank in behind.ranks]
    first = _worst(ranks, away)
    at = at_what(ranks[first])
    sure = 0.9 if len(away) < len(ranks) else 0.6
    same = [rank for rank in away if _place(ranks[rank]).frame == _place(ranks[first]).frame]
    return _of(ranks, same, at.doing, sure * at.sure, f"{listed(same)} {at.words}")


def _worst(ranks: Mapping[int, RankLook], away: Sequence[int]) -> int:
    """Of several ranks that are elsewhere, the one whose place is rarest: where most are is what the job is at."""
    places = Counter(str(_place(ranks[rank]).frame) for rank in away)
    return min(away, key=lambda rank: (places[str(_place(ranks[rank]).frame)], rank))


def _mismatched(ranks: Mapping[int, RankLook], world: int) -> Blame | None:
    """The first collective in which ranks disagree; the rarer shape is the guilty one."""
    for group in sorted({g for look in ranks.values() if look.flight for g in look.flight.groups}):
        calls = {rank: _by_sequence(look.flight, group) for rank, look in ranks.items() if look.flight}
        calls = {rank: found for rank, found in calls.items() if found}
        shared = sorted(set.intersection(*(set(found) for found in calls.values()))) if len(calls) > 1 else []
        for sequence in shared:
            shapes = {rank: found[sequence].shape for rank, found in calls.items()}
            if odd := _minority(shapes):
                return _mismatch(ranks, odd, shapes, sequence)
    return None


def _mismatch(ranks: Mapping[int, RankLook], odd: list[int], shapes: Mapping[int, str], sequence: int) -> Blame | None:
    if len({shape.split("[")[0] for shape in shapes.values()}) == 1 and "all_to_all" in shapes[odd[0]]:
        return None  # sizes of an all-to-all may differ
    others = Counter(shape for rank, shape in shapes.items() if rank not in odd).most_common(1)[0][0]
    words = f"collective {sequence}: {listed(odd)} called {shapes[odd[0]]}, the others {others}"
    return _of(ranks, odd, "collective", 0.9 if len(odd) * 2 < len(shapes) else 0.5, words, hard=True)


def _by_sequence(flight: Flight | None, group: str) -> dict[int, Collective]:
    return {item.sequence: item for item in flight.collectives if item.group == group} if flight else {}


def _minority(shapes: Mapping[int, str]) -> list[int]:
    """Ranks whose shape is not the most frequent; of two camps of one size the one without the lowest rank."""
    counts = Counter(shapes[rank] for rank in sorted(shapes))
    common = counts.most_common(1)[0][0]
    return sorted(rank for rank, shape in shapes.items() if shape != common)


def _behind(ranks: Mapping[int, RankLook], world: int) -> Blame | None:
    """The ranks that were asked for fewer collectives than the others of the same group."""
    for group in sorted({g for look in ranks.values() if look.flight for g in look.flight.groups}):
        numbers = {
            rank: look.flight.groups[group].enqueued
            for rank, look in ranks.items()
            if look.flight and group in look.flight.groups
        }
        if len(set(numbers.values())) > 1:
            lowest = min(numbers.values())
            found = sorted(rank for rank, number in numbers.items() if number == lowest)
            words = f"{listed(found)} at collective {lowest}, the others at {max(numbers.values())}"
            return _of(ranks, found, "collective", 0.7, words)
    return None


def _outlier(ranks: Mapping[int, RankLook], world: int) -> Blame | None:
    """All wait, but not at the same line of the user's code: the rarer line is where one went astray."""
    places = {rank: frame for rank, look in ranks.items() if (frame := _place(look).frame) is not None}
    odd = _minority({rank: str(frame) for rank, frame in places.items()}) if places else []
    if not odd:
        return None
    words = f"{listed(odd)} in a collective at {places[odd[0]]}, the others in another at {_common(ranks)}"
    return _of(ranks, odd, "collective", 0.7 if len(odd) * 2 < len(places) else 0.4, words)


def _place(look: RankLook) -> Place:
    return place(look)


def _common(ranks: Mapping[int, RankLook], without: Sequence[int] = ()) -> Frame | None:
    """Where most of the others are."""
    frames = [_place(look).frame for rank, look in ranks.items() if rank not in without]
    counts = Counter(frame for frame in frames if frame is not None)
    return counts.most_common(1)[0][0] if counts else None


def usual_place(look: Look) -> Frame | None:
    """Where in the user's code most ranks are."""
    return _common(look.ranks)


def _of(
    ranks: Mapping[int, RankLook], guilty: list[int], doing: Doing, sure: float, words: str, hard: bool = False
) -> Blame:
    guilty = sorted(guilty)
    frame = _place(ranks[guilty[0]]).frame if guilty and guilty[0] in ranks else None
    other = _common(ranks, guilty)
    return Blame(ranks=guilty, doing=doing, frame=frame, other=other, sure=round(sure, 2), words=words, hard=hard)


def listed(ranks: Sequence[int]) -> str:
    """ "rank 3 is" or "ranks 1, 2 are", without the verb; long lists are cut."""
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


def frozen(earlier: Look, later: Look, ranks: Sequence[int]) -> bool | None:
    """Whether those ranks did the same thing in both looks; None when their stacks could not be read.

    The line within the innermost function may move (a loop that spins), and nothing else; and no bytes may flow.
    """
    answers = [_same(earlier.ranks.get(rank), later.ranks.get(rank)) for rank in ranks]
    if any(answer is False for answer in answers):
        return False
    return None if not answers or any(answer is None for answer in answers) else True


# Bytes through system calls between two looks that show a rank at work: a checkpoint being written, a file being read.
_FLOW_BYTES = 256 << 10


def _same(one: RankLook | None, two: RankLook | None) -> bool | None:
    if one is None or two is None:
        return None
    if one.gone or two.gone:
        return one.gone == two.gone
    moved = (two.activity.read_bytes - one.activity.read_bytes) + (
        two.activity.written_bytes - one.activity.written_bytes
    )
    if moved > _FLOW_BYTES:
        return False
    if one.stack is None or two.stack is None:
        return None
    return _shape(one.stack) == _shape(two.stack)


def _shape(stack: Sequence[Frame]) -> list[tuple[str, int, str]]:
    """A stack without the line of its innermost function, which a spinning loop changes."""
    return [(f.file, f.line if index else 0, f.function) for index, f in enumerate(stack)]
