"""One fault is one incident across nodes and jobs, in whatever order it is told; two faults stay two."""

import itertools

import msgspec
import pytest
from incident_changes import START, Seen, finding

from checks.base import Finding, Status
from daemons.alerts.config import AlertsConfig
from daemons.incidents import Incident, Kind, Situation, decide
from daemons.incidents.correlation import ALONE, Correlation, Topology

NODES = [f"n{index}" for index in range(1, 17)]
TWO_LEAVES = Topology(
    leaves={node: "leaf1" if index < 8 else "leaf2" for index, node in enumerate(NODES)},
    racks={node: f"rack{index // 4}" for index, node in enumerate(NODES)},
)
FLEET = Correlation(topology=TWO_LEAVES)


class Fleet:
    """Findings of many nodes, one batch each, with the time that each began."""

    def __init__(self, correlation: Correlation = FLEET) -> None:
        self.correlation, self.situation, self.seq = correlation, Situation(), 0

    def told(self, *changes: tuple[str, Finding], at: float = START) -> list[Kind]:
        news = []
        for kind, found in changes:
            self.seq += 1
            news.append(Seen(self.seq, kind, found, at))
        self.situation, tells = decide(self.situation, news, at, AlertsConfig(), self.correlation)
        return [tell.kind for tell in tells]

    @property
    def incidents(self) -> list[Incident]:
        return list(self.situation.incidents.values())

    @property
    def only(self) -> Incident:
        (found,) = self.incidents
        return found


def link(node: str, begun: float = START) -> Finding:
    return finding(
        "ib/mlx5_0/1", cause="net.infiniband", node=node, source="ib_port", summary="port down", first_seen=begun
    )


def lost(node: str = "n12", begun: float = START, cause: str = "gpu.lost", status: Status = Status.FAIL) -> Finding:
    return finding("gpu/5", status, cause=cause, node=node, first_seen=begun)


def job(cause: str = "gpu.lost", node: str = "n12", begun: float = START + 40, number: int = 8841) -> Finding:
    return finding(
        f"job/{number}/rank/37", cause=cause, node=node, source="run", kind="failed", summary="rank 37 died",
        first_seen=begun,
    )  # fmt: skip


def test_a_switch_that_takes_its_nodes_is_one_incident_told_again_when_it_is_clear_that_it_is_many() -> None:
    fleet = Fleet()
    assert fleet.told(("opened", link("n1"))) == [Kind.OPENED]
    assert fleet.told(("opened", link("n2", START + 1)), at=START + 1) == []
    assert fleet.told(*(("opened", link(n, START + 2)) for n in NODES[2:8]), at=START + 2) == [Kind.GREW]
    assert (fleet.only.key, fleet.only.nodes) == ("net.infiniband|ib|leaf/leaf1", tuple(sorted(NODES[:8])))
    assert fleet.told(*(("cleared", link(n)) for n in NODES[:8]), at=START + 60) == [Kind.RESOLVED]


def test_two_switches_are_two_incidents() -> None:
    fleet = Fleet()
    fleet.told(*(("opened", link(node)) for node in NODES))
    assert [len(incident.nodes) for incident in fleet.incidents] == [8, 8]


def test_a_link_that_fails_hours_later_on_the_same_switch_is_news() -> None:
    fleet = Fleet()
    fleet.told(("opened", link("n1")))
    assert fleet.told(("opened", link("n2", START + 7200)), at=START + 7200) == [Kind.OPENED]
    assert [incident.nodes for incident in fleet.incidents] == [("n1",), ("n2",)]


def test_a_second_link_of_the_same_node_joins_however_late() -> None:
    fleet = Fleet()
    fleet.told(("opened", link("n1")))
    other = msgspec.structs.replace(link("n1", START + 7200), component="ib/mlx5_1/1", fingerprint="other")
    assert fleet.told(("opened", other), at=START + 7200) == []
    assert fleet.only.components == 2


def test_faults_of_single_nodes_stay_apart() -> None:
    fleet = Fleet()
    assert fleet.told(("opened", lost("n1")), ("opened", lost("n2"))) == [Kind.OPENED, Kind.OPENED]


def test_heat_belongs_to_the_rack_and_a_server_that_is_gone_to_everybody() -> None:
    fleet = Fleet()
    hot = [lost(node, cause="gpu.thermal_power") for node in NODES[:4]]
    gone = [finding("mount/data", cause="storage.filesystem", node=n, source="mounts", kind="hung") for n in NODES]
    fleet.told(*(("opened", found) for found in (*hot, *gone)))
    assert sorted((incident.key, len(incident.nodes)) for incident in fleet.incidents) == [
        ("gpu.thermal_power|gpu|rack/rack0", 4),
        ("storage.filesystem|mount|mount/data", 16),
    ]


def test_without_a_topology_every_node_is_by_itself() -> None:
    fleet = Fleet(ALONE)
    fleet.told(*(("opened", link(node)) for node in NODES[:3]))
    assert len(fleet.incidents) == 3


def test_a_job_that_died_of_its_node_is_one_story_in_either_order() -> None:
    for order in itertools.permutations([("opened", lost()), ("opened", job())]):
        fleet = Fleet()
        assert [kind for told in order for kind in fleet.told(told, at=START + 45)] == [Kind.OPENED]
        assert (fleet.only.cause, fleet.only.components) == ("gpu.lost", 2)


def test_what_else_happens_to_the_job_goes_on_in_that_story() -> None:
    fleet = Fleet()
    fleet.told(("opened", lost()), ("opened", job()))
    again = finding("job/8841", cause="net.peer_lost", node="n3", source="run", kind="stuck", first_seen=START + 90)
    assert fleet.told(("opened", again), at=START + 90) == []
    assert fleet.only.nodes == ("n12", "n3")
    everything = [("cleared", lost()), ("cleared", job()), ("cleared", again)]
    assert fleet.told(*everything, at=START + 99) == [Kind.RESOLVED]


@pytest.mark.parametrize(
    ("node", "failure"),
    [
        (lost(), job("program.python")),
        (lost(), job("data.loader")),
        (lost(), job(node="n13")),
        (lost(begun=START - 700), job()),
        (lost(begun=START + 700), job()),
        (finding("gpu/5", cause="program.config", node="n12", first_seen=START), job()),
    ],
    ids=["own code", "own data", "another node", "long before", "long after", "not of the node"],
)
def test_what_does_not_explain_a_job_is_an_incident_of_its_own(node: Finding, failure: Finding) -> None:
    for first, second in ((node, failure), (failure, node)):
        fleet = Fleet()
        fleet.told(("opened", first))
        fleet.told(("opened", second))
        assert len(fleet.incidents) == 2


def test_a_warning_that_comes_later_does_not_become_the_reason_of_a_failure() -> None:
    fleet = Fleet()
    fleet.told(("opened", job("net.peer_lost")))
    fleet.told(("opened", lost(status=Status.WARN, cause="gpu.thermal_power", begun=START + 50)), at=START + 50)
    assert len(fleet.incidents) == 2


def test_of_several_troubles_the_one_of_the_same_cause_explains_the_job() -> None:
    fleet = Fleet()
    near = finding("mount/x", cause="storage.filesystem", node="n12", source="mounts", first_seen=START + 39)
    fleet.told(("opened", lost()), ("opened", near), ("opened", job()))
    assert sorted((incident.cause, incident.components) for incident in fleet.incidents) == [
        ("gpu.lost", 2),
        ("storage.filesystem", 1),
    ]


def test_late_and_repeated_and_shuffled_changes_come_to_the_same() -> None:
    told = [("opened", lost()), ("opened", job()), ("opened", link("n1")), ("opened", link("n2", START + 3))]
    expected = None
    for order in itertools.permutations(told):
        fleet = Fleet()
        for one in (*order, *order):
            fleet.told(one, at=START + 50)
        shape = sorted((i.cause, i.nodes, i.components, i.over) for i in fleet.incidents)
        expected = expected or shape
        assert shape == expected
    assert expected == [("gpu.lost", ("n12",), 2, False), ("net.infiniband", ("n1", "n2"), 2, False)]
