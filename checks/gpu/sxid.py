"""An SXid is an NVSwitch's report of a fault: it hits every GPU of the node, and names a link and not a GPU.

Another numbering than XIDs. The driver says in the line whether it is fatal; a fatal one ends what runs on the switch.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from checks.base import Check, CheckConfig, ClearRule, Finding, Memory, Status
from checks.gpu.kernel_lines import new_lines
from checks.host import Host

_SXID = re.compile(r"nvidia-nvswitch(?P<switch>\d+): SXid \(PCI:(?P<pci>[0-9a-fA-F:.]+)\): (?P<code>\d+), (?P<text>.*)")
_FATALITY = re.compile(r"^(?P<word>Non-fatal|Fatal)\b", re.IGNORECASE)
_LINK = re.compile(r"\bLink (\d+)")
# NVIDIA, Fabric Manager User Guide, appendix on NVSwitch errors: a fatal one wants the switch and its GPUs reset.
_ADVICE = {
    Status.FAIL: "drain the node and reset all GPUs and switches, or reboot; see the fabric manager's log",
    Status.WARN: "see the fabric manager's log; if it comes again, have the link checked",
}


@dataclass(frozen=True, slots=True)
class Sxid:
    """One line. fatal: None where it does not say."""

    switch: int
    code: int
    fatal: bool | None
    link: int | None
    text: str


class Config(CheckConfig, frozen=True, kw_only=True):
    """ignore: SXid numbers that this site does not want to hear of.

    A fatal one is open until a reboot; a non-fatal one for an hour of quiet (quiet_seconds).
    """

    interval: float = 1.0
    ignore: tuple[int, ...] = ()


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`nvswitch/S` for every switch with new lines, `kernel_log` for the log itself."""
    boot = host.boot_id()
    seen: dict[tuple[int, int, bool | None], list[Sxid]] = {}
    for line in new_lines(host, memory, boot):
        found = parse(line.text)
        if found is not None and found.code not in config.ignore:
            seen.setdefault((found.switch, found.code, found.fatal), []).append(found)
    for group in seen.values():
        yield _finding(group)
    yield Finding(component="kernel_log", status=Status.OK, summary=f"read; {len(seen)} new SXids")


def parse(text: str) -> Sxid | None:
    """The SXid in a kernel log line, or None."""
    found = _SXID.search(text)
    if found is None:
        return None
    word, link = _FATALITY.match(found["text"]), _LINK.search(found["text"])
    return Sxid(
        switch=int(found["switch"]),
        code=int(found["code"]),
        fatal=word["word"].lower() == "fatal" if word else None,
        link=int(link[1]) if link else None,
        text=text,
    )


def _finding(group: list[Sxid]) -> Finding:
    first = group[0]
    fatal = first.fatal is not False  # a line that does not say is taken for the worse
    links = sorted({line.link for line in group if line.link is not None})
    where = f" on link {', '.join(map(str, links))}" if links else ""
    status = Status.FAIL if fatal else Status.WARN
    return Finding(
        component=f"nvswitch/{first.switch}",
        status=status,
        cause="gpu.nvlink",
        kind=f"sxid{first.code}",
        summary=f"SXid {first.code}{where}, {'fatal' if fatal else 'non-fatal'}, {len(group)} lines",
        evidence="\n".join(dict.fromkeys(line.text for line in group[:3])),
        advice=_ADVICE[status],
        clear=ClearRule.REBOOT if fatal else ClearRule.QUIET,
    )


CHECK = Check(name="sxid", run=run, config=Config, clear=ClearRule.QUIET, events=True)
