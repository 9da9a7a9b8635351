"""What can be wrong in the simulated fabric, and how people spell it: `node:slow=0.07,direction=tx,duty=0.5`."""

from dataclasses import dataclass

KINDS = ("node", "rail", "link", "leaf", "uplink", "path")
_ALIASES = {"nic": "rail", "switch": "leaf"}
_DIRECTED = ("node", "rail", "link")


class FaultError(ValueError):
    """A fault that cannot be read or placed; the message says what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault and how often it is placed.

    kind: node (all of a node's NICs), rail (one NIC of one node), link (the path of one pair), leaf (a switch: all
    traffic through it), uplink (what leaves a leaf), path (between two leaves). slow: lost share of bandwidth, 0..1;
    1 is dead. direction: "" both, "tx" or "rx" as seen from the node (a link: from its first node). duty: share of
    tests in which it shows. hang: tests with it never answer and cost their timeout.
    at: where, as names such as "n0003" or "n0003/rail/2"; "" for anywhere.
    """

    kind: str
    slow: float = 0.4
    direction: str = ""
    duty: float = 1.0
    count: int = 1
    hang: bool = False
    at: str = ""


def parse(text: str) -> list[Fault]:
    """The faults of `kind:key=value,...`; none for "none". Raises FaultError."""
    kind, _, rest = text.partition(":")
    kind = _ALIASES.get(kind.strip(), kind.strip())
    if kind == "none":
        return []
    if kind not in KINDS:
        raise FaultError(f"{text!r}: no fault is called {kind!r}; there are {', '.join(KINDS)} and none")
    values: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        values[key.strip()] = value.strip()
    fault = Fault(
        kind=kind,
        slow=_share(text, values.pop("slow", "0.4"), "slow"),
        direction=_direction(text, kind, values.pop("direction", values.pop("dir", ""))),
        duty=_share(text, values.pop("duty", "1"), "duty"),
        count=_count(text, values.pop("count", "1")),
        hang="hang" in values and values.pop("hang") in ("", "1", "true"),
        at=values.pop("at", ""),
    )
    if values:
        raise FaultError(f"{text!r}: unknown {', '.join(values)}; known: slow, direction, duty, count, hang, at")
    return [fault]


def _share(text: str, value: str, key: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise FaultError(f"{text!r}: {key}={value}: a share above 0 and up to 1 is wanted")
    return share


def _count(text: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise FaultError(f"{text!r}: count={value}: a number from 1 is wanted")
    return int(value)


def _direction(text: str, kind: str, value: str) -> str:
    if value in ("", "both"):
        return ""
    if value not in ("tx", "rx") or kind not in _DIRECTED:
        raise FaultError(f"{text!r}: direction={value}: tx, rx or both, and for {', '.join(_DIRECTED)} only")
    return value
