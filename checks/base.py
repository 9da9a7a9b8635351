"""What a check is and what it says: Status, Finding, Check and its declared habits."""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

if TYPE_CHECKING:
    from checks.host import Host


class Status(enum.StrEnum):
    """The five words of a check. `unknown` and `skipped` never fold into `ok`."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


_BADNESS = {Status.SKIPPED: 0, Status.OK: 1, Status.WARN: 2, Status.UNKNOWN: 3, Status.FAIL: 4}


def worst(statuses: Iterator[Status] | list[Status]) -> Status:
    """The worst of them, `unknown` when there is nothing to judge by (no status at all, or only `skipped`)."""
    found = max(statuses, key=_BADNESS.__getitem__, default=Status.UNKNOWN)
    return Status.UNKNOWN if found is Status.SKIPPED else found


def worse(one: Status, other: Status) -> bool:
    """Whether `one` is worse than `other`."""
    return _BADNESS[one] > _BADNESS[other]


class ClearRule(enum.StrEnum):
    """What ends a finding that is open."""

    CLEAN_RUNS = "clean_runs"  # `clear_after` consecutive runs that looked and no longer saw it
    REBOOT = "reboot"  # a boot id other than the one it was seen in
    ACKNOWLEDGED = "acknowledged"  # a person (`muster incidents resolve`)
    QUIET = "quiet"  # an event that has not come again for `quiet_seconds`


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One statement about one component of one node.

    A check fills component, status, summary and, where something is wrong, cause, evidence and advice;
    the runner stamps node, source, boot_id and times; the ledger keeps first_seen, last_seen and count.
    Times are seconds since the epoch. `kind` tells two troubles of one component apart (two XIDs of a GPU):
    it is part of the fingerprint, the summary is not, so a summary may carry changing numbers.
    `clear` overrides the check's clear rule for this one (an XID that only a reboot cures).
    `values` are the numbers behind the words, by metric name without the muster_ prefix (Check.metrics declares them).
    """

    component: str
    status: Status
    summary: str
    cause: str = ""
    kind: str = ""
    evidence: str = ""
    advice: str = ""
    node: str = ""
    source: str = ""
    first_seen: float = 0.0
    last_seen: float = 0.0
    count: int = 1
    boot_id: str = ""
    fingerprint: str = ""
    clear: ClearRule | None = None
    values: dict[str, float] = {}


Seconds = Annotated[float, msgspec.Meta(gt=0)]


class CheckConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every check can be told under [checks.NAME]; a check's own Config extends it and may change defaults.

    interval: seconds between runs. deadline: seconds after which a run is given up. consecutive: how many runs
    in a row must see a trouble before it is opened. boot_grace: seconds after boot during which troubles are
    noted but not opened. unknown_grace: seconds for which `unknown` is borne before it is opened.
    clear_after: clean runs that clear it. quiet_seconds: silence that clears an event.
    """

    enabled: bool = True
    interval: Seconds = 60.0
    deadline: Seconds = 10.0
    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 1
    boot_grace: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    unknown_grace: Annotated[float, msgspec.Meta(ge=0)] = 120.0
    clear_after: Annotated[int, msgspec.Meta(ge=1)] = 2
    quiet_seconds: Seconds = 3600.0


# What a check remembers between runs: plain JSON values, kept durably together with the findings of the run.
Memory = dict[str, Any]

Run = Callable[["Host", Any, Memory], Iterator[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One file that reads one aspect of a machine through Host and yields Findings.

    name: the file's name, configuration key, metric label and docs anchor. run(host, config, memory) yields
    findings as it goes; an exception after some keeps those and adds one `unknown`. It may change `memory`.
    config: its CheckConfig. clear: what ends its findings. door: None for reads that cannot block, else the
    name of the sick thing that could block them ("nvml"): such a check runs in a killable child, and no second
    child is started on a door while one hangs in it. events: each finding is something that happened rather
    than a state that lasts, so seeing it again counts up. metrics: name -> help text of every number in
    Finding.values; exposed as muster_NAME{component}, a counter when the name ends in _total. NAME is noun_unit:
    bytes, seconds, celsius, watts, ratio, or a plural noun for counts.
    """

    name: str
    run: Run
    config: type[CheckConfig]
    clear: ClearRule = ClearRule.CLEAN_RUNS
    door: str | None = None
    events: bool = False
    metrics: Mapping[str, str] = field(default_factory=dict)
