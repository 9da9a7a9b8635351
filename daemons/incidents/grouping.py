"""Which findings belong together: one fault of forty links is one incident, two faults of one GPU are two."""

from checks.base import Finding

JOB = "job"


def family(finding: Finding) -> str:
    """What kind of component it is ("gpu", "ib", "mount"); every job is a family of its own ("job/8841")."""
    parts = finding.component.split("/")
    return "/".join(parts[:2]) if parts[0] == JOB else parts[0]


def what(finding: Finding) -> str:
    """The fault: its cause, else the check that could not tell one."""
    return finding.cause or f"{finding.source}:{finding.kind or finding.status}"


def key_of(finding: Finding) -> str:
    """Findings with the same key are one incident.

    All that happens to a job is one story (stuck, failed, restarted), whatever its causes and on whatever node.
    """
    kind = family(finding)
    return kind if kind.startswith(f"{JOB}/") else "|".join((finding.node, what(finding), kind))
