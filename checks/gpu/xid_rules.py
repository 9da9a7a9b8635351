"""What XID lines mean together: lines in, verdicts out, nothing read and nothing remembered here.

One line says little: 63 beside a 48 is its cure, 45 beside a 79 is its wake, and a 13 is a program's fault unless the
same unit is named again. Times are seconds since the epoch.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from checks.base import ClearRule, Status
from checks.gpu.xid_policy import Override, advice, meaning

# Lines of one fault come within a second or two; a minute covers a kernel log held up by its own flood.
NEAR_SECONDS = 60.0
# A fault repeats its line as fast as it can print: lines closer than this are one occurrence.
BURST_SECONDS = 10.0
# NVIDIA's workflows for 13 and 31 speak of repeats; a day is the span in which one job's retries fall.
REPEAT_SECONDS = 86400.0

_PCI = r"(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.[0-9])?"
# NVRM: is required: a Realtek network card logs "XID 641" too, and means its chip.
_XID = re.compile(rf"NVRM:\s+Xid \((?:PCI:)?{_PCI}\): (?P<code>\d+)\b,?\s*(?P<text>.*)")
_OFF_THE_BUS = re.compile(rf"NVRM:.*?{_PCI}.*\bfallen off the bus")
_UNITS = (
    re.compile(r"\(?GPC (\d+), TPC (\d+), SM (\d+)"),  # 13
    re.compile(r"engine (\w+ GPC\w+)", re.IGNORECASE),  # 31: "engine GRAPHICS GPCCLIENT_T1_0 faulted"
    re.compile(r"(GPC\d*\s*GPCCLIENT_\w+)"),
)
_PID = re.compile(r"\bpid=(\d+)")
_NVLINK5 = range(144, 151)


class XidEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line. pci: as sysfs spells it. unit: the part of the GPU that it names, "" for none."""

    code: int
    pci: str
    text: str
    at: float = 0.0
    boot: str = ""
    unit: str = ""
    pid: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a code on one GPU comes to. lines: those it stands on, companions included. times: occurrences in a day."""

    code: int
    status: Status
    cause: str
    clear: ClearRule
    summary: str
    advice: str
    lines: tuple[XidEvent, ...]
    times: int


def parse(text: str) -> XidEvent | None:
    """The XID in a kernel log line, or None. A GPU "fallen off the bus" without a number is a 79."""
    if found := _XID.search(text):
        unit = next((" ".join(m.groups()) for pattern in _UNITS if (m := pattern.search(found["text"]))), "")
        pid = _PID.search(found["text"])
        return XidEvent(
            code=int(found["code"]), pci=address(found["pci"]), text=text, unit=unit, pid=int(pid[1]) if pid else 0
        )
    if found := _OFF_THE_BUS.search(text):
        return XidEvent(code=79, pci=address(found["pci"]), text=text)
    return None


def address(pci: str) -> str:
    """A PCI address as sysfs spells it: four digits of domain, function 0, lower case."""
    domain, bus, device = pci.lower().split(":")
    return f"{int(domain, 16):04x}:{bus}:{device}.0"


def judge(
    events: Sequence[XidEvent],
    boot: str,
    overrides: Mapping[int, Override] | None = None,
    elsewhere: Iterable[XidEvent] = (),
) -> list[Verdict]:
    """The verdicts on one GPU's lines, worst first; a code that another one explains has none of its own.

    events: of this GPU, oldest first, earlier boots included. elsewhere: lines of the node's other GPUs, which tell a
    program (faults everywhere at once) from a unit.
    """
    now = [event for event in events if event.boot == boot]
    verdicts = []
    for code in dict.fromkeys(event.code for event in now):
        verdict = _alone(code, [event for event in now if event.code == code], overrides or {})
        rule = _RULES.get(code)
        judged = rule(verdict, now, list(elsewhere)) if rule and code not in (overrides or {}) else verdict
        if judged is not None:
            verdicts.append(_uncured(judged, events, boot))
    return sorted(verdicts, key=lambda verdict: (_ORDER[verdict.status], verdict.code))


_ORDER = {Status.FAIL: 0, Status.WARN: 1, Status.OK: 2}


def occurrences(events: Sequence[XidEvent]) -> int:
    """How often it happened: lines that follow each other closely are one occurrence."""
    times = sorted(event.at for event in events)
    return sum(1 for index, at in enumerate(times) if index == 0 or at - times[index - 1] > BURST_SECONDS)


def _alone(code: int, lines: list[XidEvent], overrides: Mapping[int, Override]) -> Verdict:
    entry = meaning(code, overrides)
    last = max(line.at for line in lines)
    times = occurrences([line for line in lines if last - line.at <= REPEAT_SECONDS])
    return Verdict(
        code=code,
        status=entry.status,
        cause=entry.cause,
        clear=entry.clear,
        summary=f"XID {code}: {entry.meaning}" + (f", {times} times in 24 h" if times > 1 else ""),
        advice=advice(code, overrides),
        lines=tuple(lines),
        times=times,
    )


def _near(lines: Iterable[XidEvent], others: Iterable[XidEvent], *codes: int) -> list[XidEvent]:
    """Lines of `others` with one of the codes (any code, if none is given) near one of `lines`."""
    lines = list(lines)
    return [
        other
        for other in others
        if other not in lines
        and (other.code in codes or not codes)
        and any(abs(other.at - line.at) <= NEAR_SECONDS for line in lines)
    ]


def _with(verdict: Verdict, companions: Iterable[XidEvent], **changes: object) -> Verdict:
    lines = tuple(sorted((*verdict.lines, *companions), key=lambda line: line.at))
    return msgspec.structs.replace(verdict, lines=lines, **changes)


def _double_bit(verdict: Verdict, now: list[XidEvent], elsewhere: list[XidEvent]) -> Verdict:
    """48: what the memory did about it decides what is left to do."""
    details = _near(verdict.lines, now, 171, 172)
    if failed := _near(verdict.lines, now, 64):
        return _with(
            verdict,
            [*details, *failed],
            summary=f"{verdict.summary}; remapping the row failed",
            advice=f"take the GPU out of service: {advice(64)}",
            clear=ClearRule.ACKNOWLEDGED,
        )
    if remapped := _near(verdict.lines, now, 63):
        return _with(
            verdict,
            [*details, *remapped],
            summary=f"{verdict.summary}; a row is set to be remapped at the next reset",
            advice="drain the node and reset the GPU: the bad row is remapped then, and the GPU is well again",
        )
    return _with(verdict, details)


def _folded_into(*masters: int) -> "_Rule":
    """A line that says nothing of its own beside one of the masters."""

    def rule(verdict: Verdict, now: list[XidEvent], elsewhere: list[XidEvent]) -> Verdict | None:
        return None if _near(verdict.lines, now, *masters) else verdict

    return rule


def _contained(verdict: Verdict, now: list[XidEvent], elsewhere: list[XidEvent]) -> Verdict | None:
    """94: beside an uncontained error it is an echo; alone only the program that was hit has died."""
    if _near(verdict.lines, now, 95):
        return None
    remapped = _near(verdict.lines, now, 63)
    return _with(
        verdict,
        remapped,
        advice="restart the job (this GPU may be used); reset the GPU when the node is drained next, to remap the row",
    )


def _teardown(verdict: Verdict, now: list[XidEvent], elsewhere: list[XidEvent]) -> Verdict | None:
    """43 and 45: the wake of whatever else stands near; alone, a program that was ended."""
    others = [event for event in _near(verdict.lines, now) if event.code not in (43, 45)]
    if others:
        return None
    return _with(verdict, (), summary=f"{verdict.summary}; no other XID near it: a program was ended")


def _program(verdict: Verdict, now: list[XidEvent], elsewhere: list[XidEvent]) -> Verdict:
    """13 and 31: the program's, unless the same unit is named in two occurrences of a day and only on this GPU."""
    if verdict.code in {event.code for event in _near(verdict.lines, elsewhere)}:
        return _with(verdict, (), summary=f"{verdict.summary}; on several GPUs at once: a program")
    last = max(line.at for line in verdict.lines)
    recent = [line for line in verdict.lines if last - line.at <= REPEAT_SECONDS and line.unit]
    for unit in dict.fromkeys(line.unit for line in recent):
        same = [line for line in recent if line.unit == unit]
        if occurrences(same) >= 2:
            return msgspec.structs.replace(
                verdict,
                status=Status.WARN,
                summary=f"XID {verdict.code} {occurrences(same)} times in 24 h on unit {unit}: hardware suspected",
                advice="run the job without this GPU; if it then passes, "
                "run the vendor's diagnostics on the GPU and open a case",
                lines=tuple(same),
            )
    return verdict


# Driver's words for NVML's recovery actions (nvml.h: nvmlDeviceGpuRecoveryAction_t) -> (status, what to do).
RECOVERY: Mapping[str, tuple[Status, str]] = {
    "none": (Status.OK, "nothing to do"),
    "gpu reset": (Status.FAIL, "drain the node and reset the GPU (`nvidia-smi --gpu-reset`)"),
    "node reboot": (Status.FAIL, "drain and reboot the node"),
    "drain p2p": (Status.FAIL, "end the jobs that use NVLink on this GPU, then reset it"),
    "drain and reset": (Status.FAIL, "drain the node, let its jobs end, then reset the GPU"),
    "recover imex domain": (Status.FAIL, "restart the IMEX domain of this NVLink partition"),
    "bus reset": (Status.FAIL, "drain the node and reset the GPU over PCI (`nvidia-smi --gpu-reset`, else a reboot)"),
    "system reboot": (Status.FAIL, "drain and reboot the node"),
}
_CHANGED_TO = re.compile(r"\bto 0x[0-9a-fA-F]+ \((?P<action>[^)]+)\)")


def recovery_action(text: str) -> str:
    """The action that a 154 asks for, a key of RECOVERY; "" when the line names none that is known."""
    found = _CHANGED_TO.search(text)
    action = re.sub(r"\s+required$", "", found["action"].strip().lower()) if found else ""
    return action if action in RECOVERY else ""


def _recovery(verdict: Verdict, now: list[XidEvent], elsewhere: list[XidEvent]) -> Verdict:
    """154: the last line holds; what it prints is done."""
    last = max(verdict.lines, key=lambda line: line.at)
    action = recovery_action(last.text)
    if not action:
        return _with(verdict, (), summary="XID 154: the GPU asks for a recovery action that muster does not know")
    status, what = RECOVERY[action]
    cause = {"drain p2p": "gpu.nvlink", "recover imex domain": "gpu.nvlink"}.get(action, "gpu.driver")
    clear = ClearRule.QUIET if status is Status.OK else ClearRule.REBOOT
    return _with(
        verdict,
        (),
        status=status,
        cause=cause,
        clear=clear,
        advice=what,
        summary=f"XID 154: the driver asks for: {action}",
    )


def _nvlink5(verdict: Verdict, now: list[XidEvent], elsewhere: list[XidEvent]) -> Verdict:
    """144 to 150: the line itself says whether the link survived."""
    fatal = [line for line in verdict.lines if not re.search(r"\bnon-?fatal\b", line.text, re.IGNORECASE)]
    if fatal:
        return verdict
    return _with(verdict, (), status=Status.WARN, clear=ClearRule.QUIET, summary=f"{verdict.summary}: non-fatal")


def _uncured(verdict: Verdict, events: Sequence[XidEvent], boot: str) -> Verdict:
    """A code that came back after the reboot that should have cured it is for hardware inspection."""
    if verdict.status is not Status.FAIL or verdict.clear is not ClearRule.REBOOT:
        return verdict
    before = [event for event in events if event.code == verdict.code and event.boot != boot]
    if not before:
        return verdict
    boots = len({event.boot for event in before})
    return msgspec.structs.replace(
        verdict,
        summary=f"{verdict.summary}; came back after {boots} {'reboot' if boots == 1 else 'reboots'}",
        advice=f"a reboot did not cure it: have the hardware inspected; {advice_inspect()}",
        clear=ClearRule.ACKNOWLEDGED,
    )


def advice_inspect() -> str:
    """What to do about hardware that no reset cures."""
    return "run the vendor's diagnostics and open a case with `nvidia-bug-report.sh`"


_Rule = Callable[[Verdict, list[XidEvent], list[XidEvent]], Verdict | None]

_RULES: Mapping[int, _Rule] = {
    13: _program,
    31: _program,
    43: _teardown,
    45: _teardown,
    48: _double_bit,
    63: _folded_into(48, 94, 95),
    64: _folded_into(48),
    94: _contained,
    154: _recovery,
    171: _folded_into(48),
    172: _folded_into(48),
    **dict.fromkeys(_NVLINK5, _nvlink5),
}
