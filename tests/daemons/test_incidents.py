"""Incidents: every transition, told and not told, with exact kinds and times."""

import msgspec
import pytest
from incident_changes import START, Seen, Story, finding

from checks.base import Status
from daemons.alerts.config import AlertsConfig
from daemons.incidents import Incident, Kind, State, Told, UnknownIncident, acknowledge, decide, resolve

HOUR = 3600.0
DAY = 24 * HOUR
LOST = finding()
WARM = finding(status=Status.WARN, cause="gpu.thermal_power", summary="GPU at 88 C")


def only(story: Story) -> Incident:
    (incident,) = story.situation.incidents.values()
    return incident


def test_a_failure_is_told_at_once_and_its_end_too() -> None:
    story = Story()
    assert story.happens(("opened", LOST)) == [Kind.OPENED]
    assert (only(story).state, only(story).severity, only(story).opened) == (State.OPEN, Status.FAIL, START)
    assert story.happens(("repeated", LOST), after=60) == []
    assert story.happens(("cleared", LOST), after=60) == [Kind.RESOLVED]
    assert (only(story).state, only(story).resolved) == (State.RESOLVED, START + 120)
    assert only(story).told == Told(at=START + 120, severity=Status.FAIL, components=1, over=True, nodes=1)


def test_unknown_is_told_once_it_is_open() -> None:
    blind = finding("check/clock_sync", Status.UNKNOWN, cause="", source="clock_sync", kind="unknown")
    assert Story().happens(("opened", blind)) == [Kind.OPENED]


def test_the_same_cause_on_many_components_is_one_incident_that_grows_and_is_told_at_tenfold() -> None:
    story = Story()
    lost = [finding(f"gpu/{index}") for index in range(100)]
    assert story.happens(("opened", lost[0])) == [Kind.OPENED]
    assert story.happens(*(("opened", one) for one in lost[1:9])) == []
    assert story.happens(("opened", lost[9])) == [Kind.GREW]
    assert story.happens(*(("opened", one) for one in lost[10:99])) == []
    assert story.happens(("opened", lost[99])) == [Kind.GREW]
    assert only(story).components == 100
    assert len(only(story).samples) == 5


def test_it_is_over_only_when_all_its_findings_are() -> None:
    story = Story()
    other = finding("gpu/4")
    story.happens(("opened", LOST), ("opened", other))
    assert story.happens(("cleared", LOST), after=5) == []
    assert story.happens(("cleared", other), after=5) == [Kind.RESOLVED]


@pytest.mark.parametrize(
    "other",
    [
        finding("gpu/3", cause="gpu.thermal_power"),
        finding("gpu/3", node="n13"),
        finding("nvswitch/0"),
        finding("check/a", cause="", source="a"),
    ],
    ids=["cause", "node", "family", "no cause"],
)
def test_another_fault_is_another_incident(other: object) -> None:
    story = Story()
    assert story.happens(("opened", LOST), ("opened", other)) == [Kind.OPENED, Kind.OPENED]  # type: ignore[arg-type]


def test_all_that_happens_to_a_job_is_one_incident_whatever_the_cause_and_node() -> None:
    story = Story()
    stuck = finding("job/8841", cause="net.collective_timeout", source="run", kind="stuck")
    rank = finding("job/8841/rank/5", cause="gpu.lost", source="run", kind="failed", node="n13")
    assert story.happens(("opened", stuck), ("opened", rank)) == [Kind.OPENED]
    assert only(story).nodes == ("n12", "n13")


def test_worse_is_told_and_easing_is_not() -> None:
    story = Story()
    worse = msgspec.structs.replace(WARM, status=Status.FAIL)
    assert story.happens(("opened", WARM)) == [Kind.OPENED]
    assert story.happens(("worsened", worse), after=1) == [Kind.WORSENED]
    assert story.happens(("eased", WARM), after=1) == []
    assert only(story).severity is Status.WARN
    assert story.happens(("worsened", worse), after=1) == []  # people were told of the worst already


def test_an_open_failure_is_told_again_every_remind_hours() -> None:
    story = Story()
    story.happens(("opened", LOST))
    assert story.passes(DAY - 1) == []
    assert story.passes(1) == [Kind.REMINDER]
    assert story.passes(DAY - 1) == []
    assert story.passes(1) == [Kind.REMINDER]


def test_a_warning_is_told_once_with_its_end_and_never_again() -> None:
    story = Story()
    assert story.happens(("opened", WARM)) == [Kind.OPENED]
    assert story.passes(10 * DAY) == []
    assert story.happens(("cleared", WARM)) == [Kind.RESOLVED]


def test_quiet_warnings_are_kept_from_people_until_they_are_failures() -> None:
    story = Story(AlertsConfig(warnings="quiet"))
    assert story.happens(("opened", WARM)) == []
    assert story.happens(("worsened", msgspec.structs.replace(WARM, status=Status.FAIL)), after=9) == [Kind.OPENED]


def test_a_failure_that_was_over_before_it_could_be_told_is_told_once_as_past() -> None:
    story = Story()
    assert story.happens(("opened", LOST), ("cleared", LOST)) == [Kind.PASSED]
    assert story.passes(DAY) == []


def test_a_warning_that_was_over_before_it_could_be_told_is_nothing() -> None:
    story = Story()
    assert story.happens(("opened", WARM), ("cleared", WARM)) == []
    assert story.passes(DAY) == []
    assert story.situation.incidents == {}


def test_acknowledged_incidents_do_not_remind_but_tell_when_worse_and_when_over() -> None:
    story = Story()
    story.happens(("opened", LOST))
    story.situation, tells = acknowledge(story.situation, only(story).id, "ada", "on it", START + 5)
    assert [tell.kind for tell in tells] == [Kind.ACKNOWLEDGED]
    assert (only(story).state, only(story).who, only(story).note) == (State.ACKNOWLEDGED, "ada", "on it")
    assert acknowledge(story.situation, only(story).id, "bob", "", START + 6) == (story.situation, [])
    assert story.passes(10 * DAY) == []
    assert story.happens(*(("opened", finding(f"gpu/{index}")) for index in range(10, 20))) == [Kind.GREW]
    ended = [("cleared", finding(f"gpu/{index}")) for index in (3, *range(10, 20))]
    assert story.happens(*ended) == [Kind.RESOLVED]


def test_resolving_by_hand_ends_it_until_its_findings_are_seen_again() -> None:
    story = Story()
    story.happens(("opened", LOST))
    story.situation = resolve(story.situation, only(story).id, "ada", "reseated", START + 60)
    assert story.passes(60) == [Kind.RESOLVED]
    assert only(story).ended == "resolved by ada: reseated"
    assert story.happens(("repeated", LOST), after=60) == []  # told after the flap interval
    assert (only(story).state, only(story).flaps, only(story).ended) == (State.OPEN, 1, "")
    assert story.passes(30 * 60) == [Kind.REOPENED]


@pytest.mark.parametrize("act", [acknowledge, resolve])
def test_an_incident_that_is_not_there_is_named(act: object) -> None:
    with pytest.raises(UnknownIncident, match=r"^no incident 'x1' goes on here; `muster incidents list` shows"):
        act(Story().situation, "x1", "ada", "", START)  # type: ignore[operator]


def test_what_comes_back_within_the_window_goes_on_in_its_incident_and_is_told_at_the_flap_interval() -> None:
    story = Story()
    told: list[tuple[float, Kind]] = []
    for _ in range(12):  # up and down every five minutes for two hours
        for kind in ("opened", "cleared"):
            told += [(story.now - START, one) for one in story.happens((kind, LOST))]
            story.now += 300
    flaps = only(story).flaps
    told += [(story.now - START, one) for one in story.passes(HOUR)]
    assert told == [
        (0.0, Kind.OPENED),
        (300.0, Kind.RESOLVED),
        (2400.0, Kind.REOPENED),
        (4500.0, Kind.RESOLVED),
        (6600.0, Kind.REOPENED),
        (10800.0, Kind.RESOLVED),
    ]
    assert flaps == 11


def test_what_comes_back_after_the_window_is_another_incident() -> None:
    story = Story()
    story.happens(("opened", LOST))
    story.happens(("cleared", LOST), after=60)
    assert story.happens(("opened", LOST), after=HOUR + 1) == [Kind.OPENED]
    assert only(story).flaps == 0


def test_incidents_that_are_over_and_told_are_forgotten_after_the_window() -> None:
    story = Story()
    story.happens(("opened", LOST), ("opened", WARM))
    story.happens(("cleared", LOST), after=60)
    story.passes(HOUR)
    assert len(story.situation.incidents) == 2
    story.passes(1)
    assert [incident.cause for incident in story.situation.incidents.values()] == ["gpu.thermal_power"]


def test_changes_that_come_twice_or_late_change_nothing() -> None:
    story = Story()
    opened, cleared = story.change("opened", LOST), story.change("cleared", LOST)
    assert story.takes([opened]) == [Kind.OPENED]
    assert story.takes([opened, cleared]) == [Kind.RESOLVED]
    assert story.takes([opened]) == []  # late: its end is known
    assert story.takes([cleared, opened, cleared]) == []
    assert (only(story).state, only(story).flaps) == (State.RESOLVED, 0)


def test_an_opening_that_comes_after_its_clear_stays_cleared() -> None:
    story = Story()
    opened, cleared = story.change("opened", LOST), story.change("cleared", LOST)
    assert story.takes([cleared]) == []
    assert story.takes([opened]) == []
    assert story.situation.incidents == {}
    assert story.happens(("opened", LOST)) == [Kind.OPENED]


def test_kinds_of_change_that_nobody_knows_yet_are_left_alone() -> None:
    story = Story()
    story.happens(("opened", LOST))
    before = story.situation
    assert story.happens(("acknowledged", LOST), ("snoozed", LOST)) == []
    assert story.situation == before


def test_findings_that_are_well_open_nothing() -> None:
    story = Story()
    assert story.happens(("opened", finding(status=Status.OK)), ("opened", finding(status=Status.SKIPPED))) == []
    assert story.situation.incidents == {}


def test_a_decision_interrupted_before_it_was_kept_is_made_again_the_same() -> None:
    story = Story()
    changes = [story.change("opened", finding(f"gpu/{n}", cause=f"gpu.{n}")) for n in range(40)]
    first = decide(story.situation, changes, story.now, story.config)
    assert decide(story.situation, changes, story.now, story.config) == first


def test_after_a_restart_the_same_changes_tell_nothing_again() -> None:
    story = Story()
    changes = [story.change("opened", finding(f"gpu/{n}", cause=f"gpu.{n}")) for n in range(40)]
    story.takes(changes)
    kept = msgspec.json.decode(msgspec.json.encode(story.situation), type=type(story.situation))
    assert kept == story.situation
    assert decide(kept, changes, story.now, story.config) == (kept, [])


def test_a_clock_set_back_a_day_silences_nothing() -> None:
    story = Story()
    story.happens(("opened", LOST))
    story.now -= DAY
    assert story.happens(("cleared", LOST)) == [Kind.RESOLVED]
    assert story.happens(("opened", LOST), after=-DAY) == [Kind.REOPENED]


def test_a_finding_that_changes_its_cause_stays_in_its_incident() -> None:
    story = Story()
    story.happens(("opened", LOST))
    assert story.happens(("worsened", msgspec.structs.replace(LOST, cause="gpu.driver"))) == []
    assert len(story.situation.incidents) == 1


def test_the_summary_of_the_finding_that_is_well_again_says_how_it_ended() -> None:
    story = Story()
    story.happens(("opened", LOST))
    well = msgspec.structs.replace(LOST, status=Status.OK, summary="8 GPUs visible")
    story.happens(("cleared", well))
    assert only(story).ended == "8 GPUs visible"


def test_counts_are_those_of_the_ledger() -> None:
    story = Story()
    story.happens(("opened", LOST), ("opened", finding("gpu/4")))
    story.happens(("repeated", msgspec.structs.replace(LOST, count=17)))
    assert only(story).count == 18


def test_ids_differ_between_two_openings_of_the_same_fault() -> None:
    story = Story()
    first = story.happens(("opened", LOST)) and only(story).id
    story.happens(("cleared", LOST))
    story.happens(("opened", LOST), after=2 * HOUR)
    assert only(story).id != first
    assert len(only(story).id) == 8


def test_a_late_change_of_an_incident_long_over_opens_nothing() -> None:
    story = Story()
    opened = story.change("opened", LOST)
    story.takes([opened, story.change("cleared", LOST)])
    story.now += 50 * 60
    assert story.takes([Seen(opened.seq, "repeated", LOST, story.now)]) == []
