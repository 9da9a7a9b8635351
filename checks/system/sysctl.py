"""A kernel setting that differs on one node (NUMA balancing, socket buffers, overcommit) makes it the odd one out."""

from collections.abc import Iterator

from msgspec import field

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: name -> what it must be, as {"kernel.numa_balancing" = "0", "net.core.rmem_max" = ">=67108864"}.

    `>=` and `<=` compare numbers, anything else compares text, several numbers by their words. None by default: what is
    right depends on the fabric and the storage of the site.
    """

    interval: float = 600.0
    expected: dict[str, str] = field(default_factory=dict)


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per configured setting, on `sysctl/<name>`."""
    for name, want in config.expected.items():
        yield _judge(host, name, want)
    if not config.expected:
        summary = "nothing is expected: checks.sysctl.expected = {'kernel.numa_balancing' = '0'}"
        yield Finding(component="sysctl", status=Status.SKIPPED, summary=summary)


def _judge(host: Host, name: str, want: str) -> Finding:
    component = f"sysctl/{name}"
    try:
        found = host.read(host.proc / "sys" / name.replace(".", "/"))
        right = holds(" ".join(found.split()), want)
    except (Unreadable, ValueError) as error:
        return Finding(component=component, status=Status.UNKNOWN, kind="unreadable", summary=str(error))
    if right:
        return Finding(component=component, status=Status.OK, summary=" ".join(found.split()))
    return Finding(
        component=component,
        status=Status.WARN,
        cause="host.kernel",
        kind="differs",
        summary=f"{name} is {' '.join(found.split())}, want {want}",
        evidence=f"{name} = {' '.join(found.split())}",
        advice=f"`sysctl -w {name}=...`, and keep it in /etc/sysctl.d",
    )


def holds(found: str, want: str) -> bool:
    """Whether a setting is as wanted. Raises ValueError when numbers are to be compared and are none."""
    if want.startswith((">=", "<=")):
        have, limit = int(found), int(want[2:])
        return have >= limit if want.startswith(">=") else have <= limit
    return found == " ".join(want.split())


CHECK = Check(name="sysctl", run=run, config=Config)
