"""The kernel says first what breaks: memory, PCIe, disks, fabric, storage; each line is read once and never again."""

import functools
import itertools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from checks.base import Check, CheckConfig, ClearRule, Finding, Memory, Status
from checks.host import Host
from checks.kmsg import Record

if TYPE_CHECKING:
    import re2

RULES = Path(__file__).with_suffix(".toml")
_LONGEST_EVIDENCE = 400
# A flood must not keep a run going for ever; the rest is read a second later.
_MOST_RECORDS = 50_000


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of kernel_log.toml."""

    id: str
    cause: str
    status: Status
    component: str
    pattern: str
    advice: str
    examples: tuple[str, ...]
    misses: tuple[str, ...]
    clear: ClearRule | None = None


class Config(CheckConfig, frozen=True, kw_only=True):
    """first_look_hours: how far back the very first look tells what the kernel said before muster was there.

    A day: what an on-call engineer asks of a node that was just handed over; older lines are history.
    ignore: ids of rules that are not wanted here.
    """

    interval: float = 1.0
    quiet_seconds: float = 3600.0
    first_look_hours: Annotated[float, msgspec.Meta(ge=0)] = 24.0
    ignore: tuple[str, ...] = ()


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """What is new in the log: one finding per component and rule, however often it came, and one on `kernel_log`."""
    boot = host.boot_id()
    same_boot = memory.get("boot") == boot
    after = memory["sequence"] if same_boot else -1
    oldest = 0.0 if memory else host.uptime() - config.first_look_hours * 3600.0
    seen: dict[tuple[str, str], Finding] = {}
    read = lost = 0
    for record in itertools.islice(host.kernel_records(after), _MOST_RECORDS):
        after = record.sequence
        read += 1
        lost += record.lost
        if record.seconds >= oldest and (rule := match(record.text)) and rule[0].id not in config.ignore:
            _note(seen, host, record, *rule)
    memory["boot"], memory["sequence"] = boot, after
    yield from seen.values()
    yield _lost(lost) if lost else Finding(component="kernel_log", status=Status.OK, summary=_summary(read, seen))


def _summary(read: int, seen: dict[tuple[str, str], Finding]) -> str:
    if not read:
        return "nothing new"
    told = sum(finding.count for finding in seen.values())
    return f"{read} new lines, {told} of them tell of trouble" if told else f"{read} new lines, none tells of trouble"


def _note(seen: dict[tuple[str, str], Finding], host: Host, record: Record, rule: Rule, groups: dict[str, str]) -> None:
    component = fill(rule.component, groups)
    when = min(host.clock.now(), host.clock.now() - host.uptime() + record.seconds)
    before = seen.get((component, rule.id))
    seen[(component, rule.id)] = Finding(
        component=component,
        status=rule.status,
        cause=rule.cause,
        kind=rule.id,
        summary=record.text[:160],
        evidence=f"[{record.seconds:.6f}] {record.text[:_LONGEST_EVIDENCE]}",
        advice=fill(rule.advice, groups),
        first_seen=before.first_seen if before else when,
        last_seen=when,
        count=before.count + 1 if before else 1,
        clear=rule.clear,
    )


def _lost(count: int) -> Finding:
    return Finding(
        component="kernel_log",
        status=Status.WARN,
        cause="host.kernel",
        kind="lost",
        summary=f"{count} lines were overwritten before they could be read: something floods the kernel log",
        advice="find the flood: `dmesg | cut -c16-60 | sort | uniq -c | sort -n | tail`",
        count=count,
    )


def fill(template: str, groups: dict[str, str]) -> str:
    """The template with its {name} filled in.

    A pattern of alternatives cannot use one group name twice, so each has its own: the one that took part stands for
    the name; when none did, the part is `any`.
    """
    took = groups.get(_names(template)) or next(filter(None, groups.values()), "any")
    return template.replace(f"{{{_names(template)}}}", took)


def _names(template: str) -> str:
    return template.partition("{")[2].partition("}")[0]


def match(text: str) -> tuple[Rule, dict[str, str]] | None:
    """The first rule that a line matches, and what its groups took."""
    rules, together, alone = _compiled()
    hits = together.Match(text)
    if not hits:
        return None
    first = min(hits)
    found = alone[first].search(text)
    assert found is not None  # the set matched it
    return rules[first], {name: value or "" for name, value in found.groupdict().items()}


def load(path: Path = RULES) -> tuple[Rule, ...]:
    """The rules, in order. Raises OSError, tomllib.TOMLDecodeError or msgspec.ValidationError."""
    return tuple(msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8"))["rule"], tuple[Rule, ...]))


@functools.cache
def _compiled() -> "tuple[tuple[Rule, ...], re2.Set, list[re2.Pattern]]":
    """The rules, all in one automaton, and each alone for its groups; compiled at first use, some 5 ms."""
    import re2

    rules = load()
    together = re2.Set.SearchSet()
    for rule in rules:
        together.Add(rule.pattern)
    together.Compile()
    return rules, together, [re2.compile(rule.pattern) for rule in rules]


CHECK = Check(name="kernel_log", run=run, config=Config, clear=ClearRule.QUIET, events=True)
