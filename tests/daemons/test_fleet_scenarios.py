"""Stories of whole clusters, each a file: what the nodes tell and when, and the incidents that people should see."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from incident_changes import START, Seen

from checks.base import Finding, Status
from daemons.alerts.config import AlertsConfig
from daemons.alerts.message import title
from daemons.alerts.record import described
from daemons.engines.slurm_text import expand
from daemons.fleet.config import TopologyConfig
from daemons.incidents import Situation, decide
from daemons.incidents.correlation import Correlation

FILES = sorted((Path(__file__).parents[1] / "fixtures/fleet").glob("*.toml"))


def finding(told: dict[str, Any], since: float) -> Finding:
    kind = told.get("kind", "")
    return Finding(
        node=told["node"],
        component=told["component"],
        source=told["source"],
        cause=told["cause"],
        kind=kind,
        status=Status(told.get("status", "fail")),
        summary=told["summary"],
        first_seen=START + told.get("since", since),
        fingerprint=f"{told['node']}:{told['source']}:{told['component']}:{kind or told['cause']}",
    )


def happenings(tree: dict[str, Any]) -> Iterator[tuple[float, str, Finding]]:
    for one in tree.get("change", []):
        yield one["at"], one.get("kind", "opened"), finding(one["finding"], one["at"])
    for each in tree.get("each", []):
        for node in expand(each["nodes"]):
            told = {**each["finding"], "node": node}
            for at in each["at"]:
                yield at, "opened", finding(told, each.get("since", at))
            for at in each.get("until", []):
                yield at, "cleared", finding({**told, "status": "ok"}, at)


def plays(tree: dict[str, Any], step: float = 15.0) -> list[dict[str, Any]]:
    """The story as the fleet lives through it: what comes in together is decided together, and time goes by."""
    topology = TopologyConfig(leaves=tree.get("leaves", {}), racks=tree.get("racks", {})).topology({})
    correlation, situation = Correlation(topology=topology), Situation()
    waiting = sorted(happenings(tree), key=lambda item: item[0])
    told: dict[str, list[str]] = {}
    now, seq = 0.0, 0
    end = waiting[-1][0] + 2000
    while now <= end:
        page = []
        while waiting and waiting[0][0] <= now:
            at, kind, found = waiting.pop(0)
            seq += 1
            page.append(Seen(seq, kind, found, START + at))
        situation, tells = decide(situation, page, START + now, AlertsConfig(), correlation)
        for tell in tells:
            assert tell.incident is not None
            told.setdefault(tell.incident.id, []).append(str(tell.kind))
        now += step
    seen = []
    for incident, shown in zip(situation.incidents.values(), _in_order(situation), strict=True):
        kept = {key: shown[key] for key in ("summary", "nodes", "components", "state")}
        seen.append({"title": title(incident), **kept, "told": told.get(incident.id, [])})
    return sorted(seen, key=lambda item: (item["title"], item["nodes"]))


def _in_order(situation: Situation) -> list[dict[str, Any]]:
    by_id = {shown["id"]: shown for shown in described(situation, (), None)}
    return [by_id[key] for key in situation.incidents]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_people_see_the_incidents_of_the_story_and_no_others(path: Path) -> None:
    tree = tomllib.loads(path.read_text())
    assert plays(tree) == sorted(tree["incident"], key=lambda item: (item["title"], item["nodes"]))


def test_there_are_stories() -> None:
    assert len(FILES) >= 4
