"""A bad cable between two switches slows jobs on nodes that are all well: only a look at the whole fabric finds it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import forget, observe
from checks.fabric.ib_counters import LIMITS, WIDTHS
from checks.host import Host, Unreadable

_LINKS = ("iblinkinfo", "-l")
_ERRORS = ("ibqueryerrors",)
# How infiniband-diags calls what the kernel calls otherwise.
_COUNTERS = {
    "SymbolErrorCounter": "symbol_error",
    "LinkErrorRecoveryCounter": "link_error_recovery",
    "LinkDownedCounter": "link_downed",
    "PortRcvErrors": "port_rcv_errors",
    "PortRcvRemotePhysicalErrors": "port_rcv_remote_physical_errors",
    "PortRcvSwitchRelayErrors": "port_rcv_switch_relay_errors",
    "PortXmitDiscards": "port_xmit_discards",
    "PortXmitConstraintErrors": "port_xmit_constraint_errors",
    "PortRcvConstraintErrors": "port_rcv_constraint_errors",
    "LocalLinkIntegrityErrors": "local_link_integrity_errors",
    "ExcessiveBufferOverrunErrors": "excessive_buffer_overrun_errors",
    "VL15Dropped": "VL15_dropped",
}
_LINK = re.compile(
    r'^(?P<guid>0x[0-9a-f]+) "\s*(?P<name>[^"]*)"\s+\d+\s+(?P<port>\d+)\[[^]]*\] ==\(\s*(?P<width>\d+)X\s+'
    r'(?P<lane>[\d.]+) Gbps\s+Active/\s*LinkUp\)==>\s+0x[0-9a-f]+\s+\d+\s+(?P<far>\d+)\[[^]]*\] "(?P<peer>[^"]*)"'
)
_OWNER = re.compile(r'^Errors for (?:0x[0-9a-f]+ )?"(?P<name>[^"]*)"')
_PORT = re.compile(r"^\s+GUID 0x[0-9a-f]+ port (?P<port>\d+): (?P<counters>.*)")
_VALUE = re.compile(r"\[(\w+) == (\d+)")


class Config(CheckConfig, frozen=True, kw_only=True):
    """look: whether this node looks at the fabric; off, because one or two nodes per fabric are enough, and a thousand
    that ask every switch are a load. It needs infiniband-diags and leave to send management datagrams (root).

    A link is judged against the most common rate among those of its kind (between switches, or to a host), and missed
    when it was there at an earlier look; it is forgotten after keep_days. limits as of `ib_counters`.
    """

    interval: float = 300.0
    deadline: float = 60.0
    consecutive: int = 3
    look: bool = False
    command_seconds: Annotated[float, Meta(gt=0)] = 25.0
    keep_days: Annotated[float, Meta(gt=0)] = 7.0


@dataclass(frozen=True, slots=True)
class Link:
    """An active link. ends: its ports as `name/port`. gigabits: of all its lanes. to_host: one end is no switch."""

    ends: tuple[str, str]
    gigabits: float
    to_host: bool

    @property
    def name(self) -> str:
        return " - ".join(self.ends)


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `fabric`, and one for each link or port in trouble on `fabric/<name>/<port>`."""
    if not config.look:
        summary = "not this node's part: checks.ib_fabric.look = true on one or two nodes per fabric"
        yield Finding(component="fabric", status=Status.SKIPPED, summary=summary)
        return
    links = parse_links(_ask(host, _LINKS, config, "==("))
    errors = parse_errors(_ask(host, _ERRORS, config, "## Summary"))
    if not links:
        raise Unreadable("iblinkinfo shows no active link")
    troubles = [*_missing(host, links, config, memory), *_slow(links), *_counting(host, errors, memory)]
    yield from troubles
    if not troubles:
        first = ", first look at its counters" if not memory.get("looked") else ""
        summary = f"{len(links)} links, all at the rate of their kind{first}"
        yield Finding(
            component="fabric", status=Status.OK, summary=summary, values={"fabric_links_active": float(len(links))}
        )
    memory["looked"] = True


def _ask(host: Host, command: tuple[str, ...], config: Config, sign: str) -> str:
    """What a tool says; its exit status tells of errors found and of its own alike. Raises Unreadable, CommandError."""
    answer = host.run(command, config.command_seconds)
    if sign not in answer.stdout:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise Unreadable(f"{command[0]}: exit {answer.returncode}: {said[-1][:160] if said else 'no answer'}")
    return answer.stdout


def parse_links(text: str) -> list[Link]:
    """The active links in the answer of `iblinkinfo -l`, each once, by name."""
    found = {}
    rows = [match for line in text.splitlines() if (match := _LINK.match(line))]
    # Ports that lead nowhere are listed too: a host's card has one or two, no switch has fewer than eight.
    ports = Counter(line.partition(" ")[0] for line in text.splitlines())
    switches = {row["name"] for row in rows if ports[row["guid"]] > 4}
    for row in rows:
        near, far = f"{row['name']}/{row['port']}", f"{row['peer']}/{row['far']}"
        ends = (near, far) if near < far else (far, near)
        to_host = not {row["name"], row["peer"]} <= switches
        found[ends] = Link(ends, int(row["width"]) * float(row["lane"]), to_host)
    return [found[ends] for ends in sorted(found)]


def parse_errors(text: str) -> dict[str, dict[str, int]]:
    """`name/port` -> counter -> value, in the answer of `ibqueryerrors`."""
    found: dict[str, dict[str, int]] = {}
    name = "?"
    for line in text.splitlines():
        if owner := _OWNER.match(line):
            name = owner["name"]
        elif port := _PORT.match(line):
            values = {
                _COUNTERS[word]: int(value) for word, value in _VALUE.findall(port["counters"]) if word in _COUNTERS
            }
            found[f"{name}/{port['port']}"] = values
    return found


def _missing(host: Host, links: list[Link], config: Config, memory: Memory) -> Iterator[Finding]:
    now = host.clock.now()
    known = {
        name: entry for name, entry in memory.get("links", {}).items() if now - entry[0] < config.keep_days * 86_400
    }
    there = {link.name for link in links}
    for name, (_, to_host) in sorted(known.items()):
        if name in there:
            continue
        near, _, far = name.partition(" - ")
        advice = (
            "see whether that node is up; else reseat the cable" if to_host else "reseat the cable, then replace it"
        )
        yield _trouble(near, Status.WARN if to_host else Status.FAIL, "gone", f"link to {far} is gone", advice)
    memory["links"] = known | {link.name: [now, link.to_host] for link in links}


def _slow(links: list[Link]) -> Iterator[Finding]:
    for to_host in (True, False):
        kind = [link for link in links if link.to_host is to_host]
        if not kind:
            continue
        usual, _ = Counter(link.gigabits for link in kind).most_common(1)[0]
        for link in kind:
            if link.gigabits < usual:
                said = f"link to {link.ends[1]} runs at {link.gigabits:g} Gb/s, {usual:g} Gb/s is usual for its kind"
                yield _trouble(
                    link.ends[0], Status.WARN, "slow", said, "it trained low: reseat, then replace the cable"
                )


def _counting(host: Host, errors: dict[str, dict[str, int]], memory: Memory) -> Iterator[Finding]:
    now, boot = host.clock.monotonic(), host.boot_id()
    seen = set()
    for port, counters in errors.items():
        for counter, value in counters.items():
            key, most = f"{port}/{counter}", WIDTHS[counter]
            seen.add(key)
            if memory.get("looked") and key not in memory.get("counters", {}):
                observe(memory, key, 0, at=now, boot=boot)  # a counter that is not told of stands at zero
            rise = observe(memory, key, value, at=now, boot=boot, maximum=most if value <= most else None)
            if rise.recent >= LIMITS[counter]:
                said = f"{counter} rose by {rise.recent} within the hour, limit {LIMITS[counter]}"
                yield _trouble(
                    port, Status.WARN, counter, said, "clean or reseat the cable on this port, then replace it"
                )
    forget(memory, "", seen)


def _trouble(port: str, status: Status, kind: str, said: str, advice: str) -> Finding:
    return Finding(
        component=f"fabric/{port}",
        status=status,
        cause="net.infiniband",
        kind=kind,
        summary=f"{port}: {said}",
        evidence=said,
        advice=advice,
    )


CHECK = Check(
    name="ib_fabric",
    run=run,
    config=Config,
    metrics={"fabric_links_active": "Links of the fabric that are active, as this node sees it."},
)
