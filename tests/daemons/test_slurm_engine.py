"""The Slurm engine against the real Slurm with four virtual nodes, and its text forms of other versions."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import need
from slurm_cluster import SlurmCluster

from checks.host import Completed, run_command
from daemons.engines import slurm_text
from daemons.engines.base import EngineError, EngineJob, EngineNode, JobState, NodeState, Submission
from daemons.engines.slurm import Slurm, sbatch


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    need("root", "slurm")
    made = SlurmCluster()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def engine(cluster: SlurmCluster) -> Slurm:
    return Slurm(lambda command, deadline: run_command(command, deadline, cluster.environment))


def node(engine: Slurm, name: str) -> EngineNode:
    return next(found for found in engine.nodes() if found.name == name)


def ended(cluster: SlurmCluster, engine: Slurm, job: str) -> EngineJob:
    cluster.wait_for(lambda: engine.job(job).state.over, f"job {job} over")
    return engine.job(job)


def test_nodes_have_names_states_partitions_and_gpus(engine: Slurm) -> None:
    assert engine.nodes() == [
        EngineNode(name=f"n{i}", state=NodeState.IDLE, partitions=("main", "canary"), gpus=8) for i in (1, 2, 3, 4)
    ]


def test_leaves_come_from_slurms_topology(engine: Slurm) -> None:
    assert engine.leaves() == {"leaf1": ("n1", "n2"), "leaf2": ("n3", "n4")}


def test_a_job_is_submitted_followed_and_its_end_known(cluster: SlurmCluster, engine: Slurm, tmp_path: Path) -> None:
    began = time.time() - 1
    job = engine.submit(
        Submission(
            name="hello",
            command=("/bin/sh", "-c", 'echo "$SLURMD_NODENAME $WORD"'),
            nodes=("n2", "n3"),
            gpus_per_node=8,
            environment={"WORD": "it's me"},
            output=str(tmp_path / "%j.out"),
        )
    )
    found = ended(cluster, engine, job)
    assert (found.state, found.exit_code, found.nodes, found.gpus) == (
        JobState.COMPLETED,
        0,
        ("n2", "n3"),
        16,
    )
    assert (found.name, found.user, found.partition) == ("hello", "root", "main")
    assert began <= found.submitted <= found.started <= found.ended <= time.time() + 1
    assert sorted((tmp_path / f"{job}.out").read_text().split("\n"))[1:3] == ["n2 it's me", "n3 it's me"]


def test_a_job_that_fails_says_with_what(cluster: SlurmCluster, engine: Slurm) -> None:
    job = engine.submit(Submission(name="fails", command=("sh", "-c", "exit 3"), nodes=1, partition="canary"))
    found = ended(cluster, engine, job)
    assert (found.state, found.exit_code, found.partition) == (JobState.FAILED, 3, "canary")


def test_a_running_job_can_be_cancelled_and_cancelling_again_is_nothing(cluster: SlurmCluster, engine: Slurm) -> None:
    job = engine.submit(Submission(name="long", command=("sleep", "60"), nodes=1))
    cluster.wait_for(lambda: engine.job(job).state is JobState.RUNNING, "running")
    assert [(found.id, found.name) for found in engine.jobs()] == [(job, "long")]
    engine.cancel(job)
    assert ended(cluster, engine, job).state is JobState.CANCELLED
    engine.cancel(job)
    assert engine.jobs() == []


def test_drain_and_undrain_touch_only_what_muster_closed(cluster: SlurmCluster, engine: Slurm) -> None:
    engine.drain("n4", "gpu.lost on gpu/5,\nincident 1a2b")
    assert node(engine, "n4").state is NodeState.DRAINED
    assert node(engine, "n4").reason == "muster: gpu.lost on gpu/5, incident 1a2b"
    engine.drain("n4", "again")
    assert node(engine, "n4").reason == "muster: gpu.lost on gpu/5, incident 1a2b"
    engine.undrain("n4")
    cluster.wait_for(lambda: node(engine, "n4").state is NodeState.IDLE, "idle")
    engine.undrain("n4")  # open already: nothing to do

    cluster.call("scontrol", "update", "nodename=n4", "state=drain", "reason=bad fan")
    engine.drain("n4", "ours")
    with pytest.raises(EngineError, match=r"n4 was not drained by muster \(bad fan\): left as it is"):
        engine.undrain("n4")
    assert (node(engine, "n4").state, node(engine, "n4").reason) == (NodeState.DRAINED, "bad fan")
    cluster.call("scontrol", "update", "nodename=n4", "state=resume")


def test_a_drained_node_with_a_job_is_draining_until_it_ends(cluster: SlurmCluster, engine: Slurm) -> None:
    job = engine.submit(Submission(name="busy", command=("sleep", "60"), nodes=("n1",)))
    cluster.wait_for(lambda: node(engine, "n1").state is NodeState.BUSY, "busy")
    engine.drain("n1", "later")
    assert node(engine, "n1").state is NodeState.DRAINING
    engine.cancel(job)
    cluster.wait_for(lambda: node(engine, "n1").state is NodeState.DRAINED, "drained")
    engine.undrain("n1")


def test_a_requeued_job_stays_away_from_the_excluded_node(cluster: SlurmCluster, engine: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\nsleep 60\n")
    job = cluster.call("sbatch", "--parsable", "--requeue", "-o", "/dev/null", str(script)).strip()
    cluster.wait_for(lambda: engine.job(job).state is JobState.RUNNING, "running")
    (first,) = engine.job(job).nodes
    engine.requeue(job, exclude=(first,))
    cluster.wait_for(lambda: "Reason=BeginTime" in cluster.call("scontrol", "show", "job", job), "back in the queue")
    cluster.wait_for(lambda: engine.job(job).state is JobState.RUNNING, "running again")
    assert (engine.job(job).restarts, engine.job(job).nodes != (first,)) == (1, True)
    engine.cancel(job)


def test_unknown_things_are_named(engine: Slurm) -> None:
    assert engine.job("99999").state is JobState.UNKNOWN
    with pytest.raises(EngineError, match="n9"):
        engine.drain("n9", "x")
    with pytest.raises(EngineError, match=r"sbatch.*Invalid partition|invalid partition"):
        engine.submit(Submission(name="x", command=("true",), nodes=1, partition="none"))


def test_no_slurm_is_an_error_and_never_an_empty_cluster() -> None:
    nowhere = {"SLURM_CONF": "/nonexistent"}
    absent = Slurm(lambda command, deadline: run_command(["no-such-tool", *command], deadline, nowhere))
    with pytest.raises(EngineError, match="not installed"):
        absent.nodes()
    silent = Slurm(
        lambda command, deadline: Completed(1, "", "slurm_load_node error: Unable to contact slurm controller")
    )
    with pytest.raises(EngineError, match="Unable to contact slurm controller"):
        silent.nodes()


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("IDLE", NodeState.IDLE),
        ("IDLE+CLOUD", NodeState.IDLE),
        ("IDLE*", NodeState.DOWN),
        ("IDLE+NOT_RESPONDING", NodeState.DOWN),
        ("ALLOCATED", NodeState.BUSY),
        ("MIXED+PLANNED", NodeState.BUSY),
        ("IDLE+DRAIN", NodeState.DRAINED),
        ("MIXED+DRAIN", NodeState.DRAINING),
        ("ALLOCATED+DRAIN", NodeState.DRAINING),
        ("DOWN+DRAIN", NodeState.DOWN),
        ("DOWN*+CLOUD", NodeState.DOWN),
        ("IDLE+MAINT+RESERVED", NodeState.BUSY),
        ("", NodeState.UNKNOWN),
        ("SOMETHING_NEW", NodeState.UNKNOWN),
    ],
)
def test_state_words_of_every_version(words: str, state: NodeState) -> None:
    assert slurm_text.node_state(words) is state


def test_values_with_spaces_end_where_the_next_key_begins() -> None:
    line = "NodeName=a1 OS=Linux 6.1.0 #1 SMP State=IDLE Reason=bad fan, ask Bob=team [root@2026-01-02T03:04:05]"
    found = slurm_text.fields(line)
    assert (found["OS"], found["State"]) == ("Linux 6.1.0 #1 SMP", "IDLE")


def test_host_lists_expand() -> None:
    assert list(slurm_text.expand("n[1-3,07],login,r[1-2]c[8-9]")) == [
        "n1", "n2", "n3", "n07", "login", "r1c8", "r1c9", "r2c8", "r2c9",
    ]  # fmt: skip
    assert list(slurm_text.expand("gpu[008-011]")) == ["gpu008", "gpu009", "gpu010", "gpu011"]
    assert list(slurm_text.expand("")) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("cpu=8,mem=4000M,billing=8,gres/gpu=8,gres/gpu:h100=8", 8),
        ("gpu:h100:8(S:0-1)", 8),
        ("gpu:4", 4),
        ("gpu:a100:2,gpu:h100:6", 8),
        ("cpu=8", 0),
    ],
)
def test_gpus_are_counted_once(text: str, count: int) -> None:
    assert slurm_text.gpus(text) == count


def test_a_value_with_a_comma_cannot_be_exported() -> None:
    with pytest.raises(EngineError, match="a value may hold no comma"):
        sbatch(Submission(name="x", command=("true",), nodes=1, environment={"A": "1,2"}))
