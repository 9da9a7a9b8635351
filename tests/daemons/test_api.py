"""The local API over a real socket: reading is open on loopback, changing needs the token."""

import json
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from checks.base import Finding, Status
from checks.clock import ManualClock
from checks.registry import by_name
from checks.runner import Outcome
from daemons.errors import AddressError, MusterError, StateError
from daemons.node import api
from daemons.node.board import Board, CheckState


@dataclass
class FakeAgent:
    """An agent that answers at once and remembers what it was told."""

    board: Board
    clock: ManualClock
    told: list[tuple[str, ...]] = field(default_factory=list)
    taken: list[Finding] = field(default_factory=list)

    def ask(self, question: Callable[[], Any]) -> "Future[Any]":
        answer: Future[Any] = Future()
        try:
            answer.set_result(question())
        except MusterError as error:
            answer.set_exception(error)
        return answer

    def incidents(self) -> list[dict[str, Any]]:
        return [{"id": "i1"}]

    def acknowledge(self, incident: str, who: str, note: str) -> None:
        if incident != "i1":
            raise MusterError(f"no incident is called {incident!r}")
        self.told.append(("ack", incident, who, note))

    def resolve(self, incident: str, who: str, note: str) -> None:
        self.told.append(("resolve", incident, who, note))

    def take(self, findings: list[Finding]) -> int:
        self.taken += findings
        return len(findings)


WELL = Finding(component="memory", status=Status.OK, summary="fine")


def board_at(looked: float) -> Board:
    outcome = Outcome(check=by_name("memory"), findings=(WELL,), seconds=0.1, at=looked, looked=True, memory={})
    state = CheckState(name="memory", interval=15.0).ran(outcome)
    return Board(node="n1", version="1", started=looked, checks={"memory": state})


@pytest.fixture
def agent() -> FakeAgent:
    clock = ManualClock()
    return FakeAgent(board_at(clock.now()), clock)


@pytest.fixture
def base(agent: FakeAgent) -> Iterator[str]:
    server = api.Server(api.Api(agent, "s3cret").app(), api.listen("127.0.0.1:0"))
    server.start()
    yield f"http://{server.address}"
    server.stop()


def call(url: str, body: bytes | None = None, token: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(url, data=body, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            code, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            code, text = error.code, error.read().decode()
    return code, json.loads(text) if text[:1] in "[{" else text


def test_health_is_200_while_every_check_looked_lately(base: str) -> None:
    code, answer = call(f"{base}/healthz")
    assert (code, answer["healthy"], answer["checks"]["memory"]["age_seconds"]) == (200, True, 0.0)


def test_health_is_503_when_a_check_has_not_looked_for_three_intervals_and_a_minute(
    base: str, agent: FakeAgent
) -> None:
    agent.clock.advance(3 * 15 + 60 + 1)
    code, answer = call(f"{base}/healthz")
    assert (code, answer["checks"]["memory"]["stale"]) == (503, True)


def test_health_is_503_while_the_ledger_cannot_be_written(base: str, agent: FakeAgent) -> None:
    agent.board = replace(agent.board, degraded="disk full")
    assert call(f"{base}/healthz")[0] == 503


def test_findings_shows_what_is_open_and_what_was_last_seen(base: str) -> None:
    code, answer = call(f"{base}/findings")
    assert (code, answer["node"], answer["status"], answer["open"]) == (200, "n1", "ok", [])
    assert [finding["summary"] for finding in answer["last"]] == ["fine"]


def test_metrics_are_prometheus_text(base: str) -> None:
    code, text = call(f"{base}/metrics")
    assert code == 200
    assert 'muster_check_status{check="memory",status="ok"} 1.0' in text.splitlines()


def test_the_status_page_is_html(base: str) -> None:
    code, text = call(f"{base}/")
    assert (code, text.splitlines()[0]) == (200, "<!doctype html>")


@pytest.mark.parametrize("token", ["", "wrong", "s3cret "])
@pytest.mark.parametrize("path", ["/findings", "/incidents/i1/ack", "/incidents/i1/resolve"])
def test_changes_without_the_token_are_refused(base: str, agent: FakeAgent, path: str, token: str) -> None:
    code, answer = call(f"{base}{path}", b"[]", token.strip() + "x" if token else "")
    assert (code, list(answer)) == (401, ["error"])
    assert (agent.told, agent.taken) == ([], [])


def test_findings_of_a_job_are_taken(base: str, agent: FakeAgent) -> None:
    body = b'[{"component": "job/1/rank/0", "status": "fail", "summary": "died"}]'
    assert call(f"{base}/findings", body, "s3cret") == (200, {"taken": 1})
    assert [finding.component for finding in agent.taken] == ["job/1/rank/0"]


@pytest.mark.parametrize("body", [b"{", b'[{"component": 1}]', b"[" + b" " * (1 << 20) + b"]"])
def test_malformed_or_oversized_bodies_are_400(base: str, agent: FakeAgent, body: bytes) -> None:
    assert call(f"{base}/findings", body, "s3cret")[0] == 400
    assert agent.taken == []


def test_acknowledging_tells_who_and_why(base: str, agent: FakeAgent) -> None:
    body = b'{"who": "ann", "note": "on it"}'
    assert call(f"{base}/incidents/i1/ack", body, "s3cret") == (200, {"done": True})
    assert agent.told == [("ack", "i1", "ann", "on it")]


def test_an_unknown_incident_is_404(base: str) -> None:
    assert call(f"{base}/incidents/i9/ack", b"{}", "s3cret") == (404, {"error": "no incident is called 'i9'"})


def test_a_taken_port_is_one_error_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressError) as raised:
            api.listen(address)
    assert str(raised.value) == (
        f"node.listen: cannot listen on {address}: Address already in use; set node.listen to a free port (0 takes any)"
    )


@pytest.mark.parametrize("address", ["9808", "localhost", "127.0.0.1:http", ":80"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(AddressError, match=r"^node\.listen: .* is no host:port"):
        api.listen(address)


def test_the_token_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    first = api.token(tmp_path)
    assert len(first) >= 32
    assert api.token(tmp_path) == first
    assert stat.S_IMODE((tmp_path / api.TOKEN_FILE).stat().st_mode) == 0o600


def test_a_state_directory_that_is_none_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file or directory"):
        api.token(tmp_path / "none")
