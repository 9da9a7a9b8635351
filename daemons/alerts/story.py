"""What happened to a job and its node, as one sentence that a person would say. Pure."""

from checks.base import Finding
from daemons.incidents import Incident
from daemons.incidents.grouping import JOB

# What a component did, by cause; of other causes the finding's own summary speaks.
_DID = {
    "gpu.lost": "fell off the bus",
    "gpu.memory_ecc": "had uncorrectable memory errors",
    "gpu.nvlink": "lost NVLink",
    "gpu.driver": "lost its driver",
    "gpu.thermal_power": "was slowed down by heat or power",
    "net.infiniband": "lost its link",
    "host.out_of_memory": "ran out of memory",
    "host.kernel": "reported a kernel or hardware fault",
}
_NAMES = {"gpu": "GPU", "nvlink": "NVLink", "ib": "InfiniBand port", "net": "interface", "mount": "mount"}


def story(incident: Incident) -> str:
    """The sentence: `job 8841 lost rank 37 on node n12, whose GPU 5 fell off the bus 40 s before`.

    "" for an incident that is not a job's and its node's together.
    """
    jobs = [finding for finding in incident.samples if _is_job(finding)]
    nodes = [finding for finding in incident.samples if not _is_job(finding)]
    if not incident.joined or not jobs or not nodes:
        return ""
    job = min(jobs, key=lambda finding: (finding.first_seen, finding.component))
    cause = min(nodes, key=lambda finding: (finding.cause != incident.cause, finding.first_seen, finding.component))
    place = f"node {job.node}, whose" if job.node == cause.node else f"node {job.node}; on {cause.node},"
    return f"{_happened(job)} on {place} {_did(cause)} {_apart(job.first_seen - cause.first_seen)}"


def _is_job(finding: Finding) -> bool:
    return finding.component.split("/")[0] == JOB


def _happened(job: Finding) -> str:
    parts = job.component.split("/")
    name = f"job {parts[1]}" if len(parts) > 1 else "a job"
    if len(parts) > 3 and parts[2] == "rank":
        verb = "got stuck at" if job.kind == "stuck" else "lost"
        return f"{name} {verb} rank {parts[3]}"
    return f"{name} {'got stuck' if job.kind == 'stuck' else 'failed'}"


def _did(finding: Finding) -> str:
    did = _DID.get(finding.cause)
    return f"{component(finding.component)} {did}" if did else f"{component(finding.component)} had: {finding.summary},"


def component(path: str) -> str:
    """A component in words: "GPU 5", "GPU 5 NVLink 7", "InfiniBand port mlx5_0/1", "mount /data"."""
    parts = path.split("/")
    if parts[0] == "gpu" and len(parts) > 1:
        return " ".join(_NAMES.get(part, part) for part in parts)
    known = _NAMES.get(parts[0])
    return f"{known} {path.removeprefix(parts[0]).removeprefix('/')}" if known and len(parts) > 1 else path


def _apart(seconds: float) -> str:
    whole = round(abs(seconds))
    if whole == 0:
        return "at the same time"
    length = f"{whole} s" if whole < 120 else f"{whole // 60} min"
    return f"{length} {'before' if seconds > 0 else 'after'}"
