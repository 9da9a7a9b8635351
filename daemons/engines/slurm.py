"""Slurm through its own tools: sinfo-like facts from scontrol, sbatch to start, scontrol to drain.

scontrol is asked rather than slurmrestd or the JSON plugin: it is on every Slurm machine, needs no token, and its
key=value lines have kept their form since 14.11 (the JSON of sinfo and squeue changed shape in 21.08, 23.02 and 24.05).
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence

from checks.host import CommandError, Completed, run_command
from daemons.engines import slurm_text
from daemons.engines.base import (
    REASON_PREFIX,
    EngineError,
    EngineJob,
    EngineNode,
    JobState,
    NodeState,
    Submission,
)

# slurmctld answers in milliseconds; MessageTimeout is 10 s by default, and a client waits for twice that at failover.
DEADLINE = 25.0
_DRAIN = frozenset({NodeState.DRAINED, NodeState.DRAINING})

Runner = Callable[[Sequence[str], float], Completed]


class Slurm:
    """The cluster that SLURM_CONF (or Slurm's own default) names."""

    name = "slurm"

    def __init__(self, run: Runner = run_command) -> None:
        self._run = run

    def nodes(self) -> list[EngineNode]:
        """Every node. Raises EngineError."""
        return slurm_text.nodes(self._ask("scontrol", "-d", "-o", "show", "nodes"))

    def jobs(self) -> list[EngineJob]:
        """Every job that waits or runs. Raises EngineError."""
        text = self._ask("scontrol", "-o", "-a", "show", "jobs")
        return [job for job in slurm_text.jobs(text) if not job.state.over]

    def job(self, job_id: str) -> EngineJob:
        """One job; slurmctld knows an ended one for MinJobAge (300 s), sacct for longer. Raises EngineError."""
        done = self._call("scontrol", "-o", "show", "job", job_id)
        found = slurm_text.jobs(done.stdout) if done.returncode == 0 else []
        if found:
            return found[0]
        if "Invalid job id" not in done.stderr:
            raise _refused(("scontrol", "show", "job", job_id), done)
        return self._accounted(job_id)

    def leaves(self) -> dict[str, tuple[str, ...]]:
        """Leaf switch -> nodes; empty where Slurm knows no topology. Raises EngineError."""
        done = self._call("scontrol", "-o", "show", "topology")
        return slurm_text.leaves(done.stdout) if done.returncode == 0 else {}

    def submit(self, submission: Submission) -> str:
        """Start a job; its id. Raises EngineError."""
        answer = self._ask(*sbatch(submission))
        return answer.strip().split(";")[0]

    def cancel(self, job_id: str) -> None:
        """End a job; nothing when it is over. Raises EngineError."""
        done = self._call("scancel", job_id)
        if done.returncode != 0 and "Invalid job id" not in done.stderr:
            raise _refused(("scancel", job_id), done)

    def drain(self, node: str, reason: str) -> None:
        """Close a node to new jobs. One that somebody closed already keeps its reason. Raises EngineError."""
        found = self._node(node)
        if found.state in _DRAIN or (found.state is NodeState.DOWN and found.reason):
            return
        text = reason if reason.startswith(REASON_PREFIX) else f"{REASON_PREFIX}{reason}"
        self._ask("scontrol", "update", f"nodename={node}", "state=drain", f"reason={_one_line(text)}")

    def undrain(self, node: str) -> None:
        """Open a node that muster closed. Raises EngineError for one that somebody else closed."""
        found = self._node(node)
        if not found.reason or found.state not in _DRAIN | {NodeState.DOWN}:
            return
        if not found.drained_by_us:
            raise EngineError(f"{node} was not drained by muster ({found.reason or 'no reason given'}): left as it is")
        self._ask("scontrol", "update", f"nodename={node}", "state=resume")

    def requeue(self, job_id: str, exclude: Sequence[str] = ()) -> None:
        """Put a job back into the queue, away from some nodes. Raises EngineError."""
        self._ask("scontrol", "requeue", job_id)
        if exclude:
            self._ask("scontrol", "update", f"jobid={job_id}", f"excnodelist={','.join(exclude)}")

    def _node(self, name: str) -> EngineNode:
        found = slurm_text.nodes(self._ask("scontrol", "-d", "-o", "show", "node", name))
        if not found:
            raise EngineError(f"slurm knows no node {name!r}; `scontrol show nodes` lists them")
        return found[0]

    def _accounted(self, job_id: str) -> EngineJob:
        columns = "JobIDRaw,JobName,State,User,Partition,NodeList,ExitCode,Submit,Start,End"
        done = self._call("sacct", "-n", "-P", "-X", "-j", job_id, "-o", columns)
        rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == columns.count(",")]
        if done.returncode != 0 or not rows:
            return EngineJob(id=job_id, name="", state=JobState.UNKNOWN, reason="slurm has forgotten it")
        keys = ("JobId", "JobName", "JobState", "UserId", "Partition", "NodeList", "ExitCode")
        times = ("SubmitTime", "StartTime", "EndTime")
        line = " ".join(f"{key}={value}" for key, value in zip(keys + times, rows[-1], strict=True))
        return slurm_text.jobs(line)[0]

    def _ask(self, *command: str) -> str:
        done = self._call(*command)
        if done.returncode != 0:
            raise _refused(command, done)
        return done.stdout

    def _call(self, *command: str) -> Completed:
        try:
            return self._run(command, DEADLINE)
        except CommandError as error:
            raise EngineError(f"slurm: {error} (asked: {shlex.join(command[:4])})") from error


def sbatch(submission: Submission, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The command line that submits a job which runs its command once per node under srun."""
    where = submission.nodes
    options = [
        "sbatch",
        "--parsable",
        "--no-requeue",
        f"--job-name={submission.name}",
        f"--nodes={where if isinstance(where, int) else len(where)}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={submission.cpus_per_task}",
        f"--time={max(1, round(submission.time_limit / 60))}",
        f"--output={submission.output or '/dev/null'}",
        f"--export={_exported(submission.environment)}",
    ]
    if not isinstance(where, int):
        options.append(f"--nodelist={','.join(where)}")
    if submission.gpus_per_node:
        options.append(f"--gres=gpu:{submission.gpus_per_node}")
    for option, value in (
        ("partition", submission.partition),
        ("account", submission.account),
        ("qos", submission.qos),
    ):
        if value:
            options.append(f"--{option}={value}")
    if submission.nice:
        options.append(f"--nice={submission.nice}")
    return (*options, f"--wrap=exec srun --kill-on-bad-exit=1 {shlex.join(submission.command)}")


def _exported(environment: Mapping[str, str]) -> str:
    for name, value in environment.items():
        if "," in value:
            raise EngineError(f"slurm cannot export {name}={value!r}: a value may hold no comma")
    return ",".join(["ALL", *(f"{name}={value}" for name, value in environment.items())])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _refused(command: Sequence[str], done: Completed) -> EngineError:
    said = (done.stderr or done.stdout).strip().splitlines()
    return EngineError(f"slurm: {shlex.join(command)}: exit {done.returncode}: {said[-1] if said else 'nothing said'}")
