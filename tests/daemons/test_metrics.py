"""/metrics: what a scrape says of a board, whole."""

from prometheus_client import CollectorRegistry, generate_latest

from checks.base import Finding, Status
from checks.registry import by_name
from checks.runner import Outcome
from daemons.metrics import OPEN_SERIES, BoardCollector
from daemons.node.board import AlertState, Board, CheckState


def page(board: Board) -> str:
    registry = CollectorRegistry()
    registry.register(BoardCollector(lambda: board))
    return generate_latest(registry).decode()


def samples(board: Board) -> dict[str, str]:
    lines = [line for line in page(board).splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines)


def outcome(*findings: Finding, looked: bool = True) -> Outcome:
    return Outcome(check=by_name("memory"), findings=findings, seconds=0.25, at=1000.0, looked=looked, memory={})


OK = Finding(component="memory", status=Status.OK, summary="", values={"memory_available_bytes": 5.0})


def board(*, state: CheckState, **more: object) -> Board:
    return Board(node="n1", version="1.2", started=900.0, checks={state.name: state}, **more)  # type: ignore[arg-type]


def test_a_check_that_ran_shows_its_one_status_and_its_numbers() -> None:
    state = CheckState(name="memory", interval=15.0).ran(outcome(OK))
    found = samples(board(state=state))
    assert {key: value for key, value in found.items() if key.startswith("muster_check")} == {
        'muster_check_status{check="memory",status="ok"}': "1.0",
        'muster_check_status{check="memory",status="warn"}': "0.0",
        'muster_check_status{check="memory",status="fail"}': "0.0",
        'muster_check_status{check="memory",status="unknown"}': "0.0",
        'muster_check_status{check="memory",status="skipped"}': "0.0",
        'muster_check_duration_seconds{check="memory"}': "0.25",
        'muster_check_last_run_timestamp_seconds{check="memory"}': "1000.0",
        'muster_check_last_success_timestamp_seconds{check="memory"}': "1000.0",
        'muster_check_interval_seconds{check="memory"}': "15.0",
        'muster_check_runs_total{check="memory"}': "1.0",
        'muster_check_unknown_runs_total{check="memory"}': "0.0",
    }
    assert found['muster_memory_available_bytes{component="memory"}'] == "5.0"


def test_a_number_that_the_last_run_did_not_see_has_no_series() -> None:
    state = CheckState(name="memory", interval=15.0).ran(outcome(OK))
    gone = Finding(component="check/memory", status=Status.UNKNOWN, summary="")
    found = samples(board(state=state.ran(outcome(gone, looked=False))))
    assert [key for key in found if key.startswith("muster_memory_")] == []
    assert found['muster_check_last_success_timestamp_seconds{check="memory"}'] == "1000.0"
    assert found['muster_check_unknown_runs_total{check="memory"}'] == "1.0"


def test_a_check_that_has_never_run_has_no_status() -> None:
    found = samples(board(state=CheckState(name="memory", interval=15.0)))
    assert [key for key in found if key.startswith("muster_check_status")] == []
    assert found['muster_check_last_success_timestamp_seconds{check="memory"}'] == "0.0"


def test_a_storm_of_open_findings_is_counted_whole_and_listed_in_part() -> None:
    storm = tuple(
        Finding(component=f"gpu/{i}", status=Status.FAIL, summary="", cause="gpu.lost", source="xid", first_seen=5.0)
        for i in range(10_000)
    )
    found = samples(board(state=CheckState(name="memory", interval=15.0), open=storm))
    assert found['muster_findings_open{cause="gpu.lost",check="xid",status="fail"}'] == "10000.0"
    listed = [key for key in found if key.startswith("muster_finding_first_seen")]
    assert len(listed) == OPEN_SERIES


def test_alerts_ledger_and_hung_doors_are_told() -> None:
    found = samples(
        board(
            state=CheckState(name="memory", interval=15.0),
            alerts=AlertState(waiting=3, oldest_seconds=7.0, sent={"slack": 2}),
            degraded="no space left on device",
            hung={"mount:/data": 12.0},
            incidents={"fail": 1},
            opened={("xid", "gpu.lost"): 4},
        )
    )
    assert found["muster_alerts_waiting"] == "3.0"
    assert found["muster_alerts_oldest_seconds"] == "7.0"
    assert found['muster_alerts_sent_total{channel="slack"}'] == "2.0"
    assert found["muster_ledger_degraded"] == "1.0"
    assert found['muster_door_hung_seconds{door="mount:/data"}'] == "12.0"
    assert found['muster_incidents_open{severity="fail"}'] == "1.0"
    assert found['muster_findings_opened_total{cause="gpu.lost",check="xid"}'] == "4.0"
