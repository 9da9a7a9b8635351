"""Whether a job that ended is started again, and after how long. Pure: what is remembered goes in and comes out."""

import msgspec

from daemons.supervisor.config import RunConfig
from daemons.supervisor.record import Verdict

# The exit code by which schedulers are told that another start would end the same way.
DO_NOT_REQUEUE = 93
# The same root cause so often without progress in between, and the job is given up.
STRIKES = 3
# Errors of the program itself come back at every start: one more try, in case it was chance, and no more.
_DETERMINISTIC = (
    "program.python",
    "program.config",
    "program.environment",
    "program.shape_dtype",
    "program.collective_mismatch",
    "data.missing",
    "storage.disk_full",
)


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy remembers of a job, on disk. strikes: root cause -> times without progress since.

    starts: so far. in_a_row: attempts that ended without progress. hosts: host -> times it was guilty.
    """

    starts: int = 0
    restarts: int = 0
    in_a_row: int = 0
    strikes: dict[str, int] = {}
    hosts: dict[str, int] = {}
    fingerprint: str = ""
    same: int = 0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """restart: whether to start again, `wait` seconds from now. exit: what to end with otherwise. why: one sentence."""

    restart: bool
    wait: float = 0.0
    exit: int = 0
    why: str = ""


def fingerprint(verdict: Verdict) -> str:
    """What makes two failures the same: cause and place, not rank, time or host."""
    return f"{verdict.kind}|{verdict.cause}|{verdict.file}:{verdict.line}"


def remember(memory: Memory, verdict: Verdict, progressed: bool) -> Memory:
    """The memory after an attempt. Progress resets what was counted against the job, not the restarts it has used."""
    before = {} if progressed else memory.strikes
    strikes = {**before, verdict.cause: before.get(verdict.cause, 0) + 1}
    this = fingerprint(verdict)
    same = memory.same + 1 if this == memory.fingerprint and not progressed else 1
    hosts = memory.hosts
    if verdict.host and verdict.cause.split(".")[0] in ("gpu", "host", "net", "storage"):
        hosts = {**hosts, verdict.host: hosts.get(verdict.host, 0) + 1}
    return msgspec.structs.replace(
        memory,
        starts=memory.starts + 1,
        in_a_row=0 if progressed else memory.in_a_row + 1,
        strikes=strikes,
        fingerprint=this,
        same=same,
        hosts=hosts,
    )


def decide(memory: Memory, verdict: Verdict, code: int, config: RunConfig) -> Decision:
    """What to do after an attempt that `memory` already counts."""
    if verdict.kind == "finished":
        return Decision(restart=False, exit=0, why="finished")
    if verdict.kind == "stopped":
        return Decision(restart=False, exit=code, why="stopped as asked")
    if code == DO_NOT_REQUEUE:
        return Decision(
            restart=False, exit=code, why=f"the job itself says with exit code {code} not to start it again"
        )
    if config.max_restarts == 0:
        return Decision(restart=False, exit=code, why="no restarts were asked for")
    if verdict.cause in _DETERMINISTIC and memory.same >= 2:
        place = f" at {verdict.file}:{verdict.line}" if verdict.file else ""
        why = f"the same {verdict.cause}{place} again, without progress: a restart cannot mend it"
        return Decision(restart=False, exit=DO_NOT_REQUEUE, why=why)
    if memory.strikes.get(verdict.cause, 0) >= STRIKES:
        why = f"{verdict.cause} ended it {STRIKES} times without progress in between"
        return Decision(restart=False, exit=DO_NOT_REQUEUE, why=why)
    if memory.restarts >= config.max_restarts:
        return Decision(restart=False, exit=code, why=f"all {config.max_restarts} restarts are used up")
    wait = backoff(memory.in_a_row, config)
    return Decision(restart=True, wait=wait, why=f"restart {memory.restarts + 1} of {config.max_restarts}")


def backoff(in_a_row: int, config: RunConfig) -> float:
    """Seconds before the next start: nothing after progress, then doubling."""
    if in_a_row == 0:
        return 0.0
    return float(min(config.backoff_limit, config.backoff * 2.0 ** min(in_a_row - 1, 20)))


def used_restart(memory: Memory) -> Memory:
    """The memory once a restart is under way."""
    return msgspec.structs.replace(memory, restarts=memory.restarts + 1)
