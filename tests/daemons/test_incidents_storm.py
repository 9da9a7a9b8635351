"""Storms: ten thousand findings are a few messages, nobody is told more than the budget, and nothing goes untold."""

from hypothesis import given, settings
from hypothesis import strategies as st
from incident_changes import Story, finding

from checks.base import Status
from daemons.alerts.config import AlertsConfig
from daemons.incidents import Digest, Incident, Kind
from daemons.incidents.storm import STORM_MESSAGES

SINGLE = AlertsConfig().burst_messages
WINDOW = AlertsConfig().burst_seconds
LIMIT = SINGLE + STORM_MESSAGES


def faults(count: int) -> list[tuple[str, object]]:
    return [("opened", finding("gpu/0", node=f"n{index:05}", cause=f"gpu.{index % 3}")) for index in range(count)]


def test_ten_thousand_findings_of_one_cause_on_one_node_are_five_messages() -> None:
    story = Story()
    for start in range(0, 10_000, 10):
        story.happens(*(("opened", finding(f"gpu/{n}")) for n in range(start, start + 10)), after=0.01)
    assert [tell.kind for tell in story.tells] == [Kind.OPENED, Kind.GREW, Kind.GREW, Kind.GREW]
    (incident,) = story.situation.incidents.values()
    assert incident.components == 10_000


def test_ten_thousand_incidents_at_once_are_fifteen_messages_and_one_that_counts_the_rest() -> None:
    story = Story()
    kinds = story.happens(*faults(10_000))  # type: ignore[arg-type]
    assert kinds == [Kind.OPENED] * SINGLE + [Kind.STORM]
    assert story.tells[-1].digest == Digest(
        incidents=9985,
        still_open=9985,
        findings=9985,
        by_cause=(("gpu.0", 3329), ("gpu.1", 3328), ("gpu.2", 3328)),
        by_check=(("gpu_count", 9985),),
        by_node=(*((f"n{n:05}", 1) for n in range(15, 22)), ("9978 others", 9978)),
    )


def test_ten_thousand_incidents_over_ten_seconds_are_at_most_twenty_messages() -> None:
    story = Story()
    everything = faults(10_000)
    for start in range(0, 10_000, 100):
        story.happens(*everything[start : start + 100], after=0.1)  # type: ignore[arg-type]
    assert [tell.kind for tell in story.tells] == [Kind.OPENED] * SINGLE + [Kind.STORM] * 3
    story.passes(WINDOW)
    assert story.tells[-1].kind is Kind.STORM
    assert story.tells[-1].digest is not None
    assert story.tells[-1].digest.incidents == 9985


def test_a_storm_that_is_over_says_so_once_and_single_incidents_say_it_each() -> None:
    story = Story()
    everything = faults(20)
    story.happens(*everything)  # type: ignore[arg-type]
    gone = [("cleared", found) for _, found in everything]
    assert story.happens(*gone, after=60) == [Kind.STORM_OVER]  # type: ignore[arg-type]
    assert story.situation.storm is None
    assert story.passes(WINDOW) == [Kind.RESOLVED] * SINGLE
    assert story.passes(WINDOW) == []


def test_the_worst_are_told_one_by_one_and_the_rest_is_folded() -> None:
    story = Story()
    warnings = [("opened", finding(f"a{n}/0", Status.WARN, cause=f"w.{n}")) for n in range(30)]
    failures = [("opened", finding(f"b{n}/0", Status.FAIL, cause=f"f.{n}")) for n in range(10)]
    story.happens(*warnings, *failures)
    told = [tell.incident.severity for tell in story.tells if tell.incident]
    assert told == [Status.FAIL] * 10 + [Status.WARN] * 5


def test_a_storm_that_goes_on_reminds_like_an_incident() -> None:
    story = Story(AlertsConfig(burst_messages=1))
    story.happens(*faults(3))  # type: ignore[arg-type]
    assert story.passes(24 * 3600) == [Kind.REMINDER, Kind.STORM]


def test_an_incident_folded_into_a_storm_that_is_over_speaks_for_itself_when_it_comes_back() -> None:
    story = Story(AlertsConfig(burst_messages=1, flap_minutes=20))
    everything = faults(2)
    story.happens(*everything)  # type: ignore[arg-type]
    gone = [("cleared", found) for _, found in everything]
    assert story.happens(*gone, after=60) == [Kind.STORM_OVER]  # type: ignore[arg-type]
    story.passes(WINDOW)
    assert story.happens(everything[1], after=WINDOW) == [Kind.REOPENED]  # type: ignore[arg-type]
    assert [incident.storm for incident in story.situation.incidents.values()] == ["", ""]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["opened", "worsened", "eased", "repeated", "cleared"]),
        st.integers(0, 5),  # node
        st.integers(0, 3),  # component
        st.integers(0, 2),  # cause
        st.sampled_from([Status.WARN, Status.FAIL, Status.UNKNOWN]),
        st.sampled_from([0.0, 1.0, 60.0, 700.0, 4000.0]),
    ),
    max_size=60,
)
TIGHT = AlertsConfig(burst_messages=3, burst_seconds=600, flap_minutes=10, reopen_minutes=30)


def play(steps: list[tuple[str, int, int, int, Status, float]]) -> Story:
    story = Story(TIGHT)
    for kind, node, component, cause, status, wait in steps:
        found = finding(f"gpu/{component}", status, node=f"n{node}", cause=f"gpu.{cause}")
        story.happens((kind, found), after=wait)
    return story


def settle(story: Story) -> None:
    for _ in range(60):
        story.passes(601)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_never_more_messages_than_the_budget_in_any_window(
    steps: list[tuple[str, int, int, int, Status, float]],
) -> None:
    story = play(steps)
    settle(story)
    times = [tell.at for tell in story.tells]
    for start in times:
        assert sum(start <= at < start + TIGHT.burst_seconds for at in times) <= 3 + STORM_MESSAGES


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_every_trouble_that_lasts_is_told_and_every_end_of_what_was_told(
    steps: list[tuple[str, int, int, int, Status, float]],
) -> None:
    story = play(steps)
    settle(story)
    for incident in story.situation.incidents.values():
        assert incident.told is not None
        assert incident.told.over == incident.over
        assert incident.over or worst_told(incident)
    ended = [tell.subject for tell in story.tells if tell.kind in (Kind.RESOLVED, Kind.PASSED)]
    opened = {tell.subject for tell in story.tells if tell.kind in (Kind.OPENED, Kind.REOPENED)}
    folded = {i.id for i in story.situation.incidents.values() if i.storm}
    going_on = {i.id for i in story.situation.incidents.values() if not i.over}
    assert opened <= set(ended) | going_on | folded


def worst_told(incident: Incident) -> bool:
    rank = [Status.WARN, Status.UNKNOWN, Status.FAIL]
    return incident.told is not None and rank.index(incident.told.severity) >= rank.index(incident.severity)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_delivered_twice_and_in_any_order_within_a_batch_it_ends_the_same(
    steps: list[tuple[str, int, int, int, Status, float]], random: object
) -> None:
    tidy, untidy = Story(TIGHT), Story(TIGHT)
    changes = [
        tidy.change(kind, finding(f"gpu/{component}", status, node=f"n{node}", cause=f"gpu.{cause}"))
        for kind, node, component, cause, status, _ in steps
    ]
    tidy.takes(changes)
    shuffled = changes * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    untidy.takes(shuffled)
    assert open_members(untidy) == open_members(tidy)


def open_members(story: Story) -> dict[str, Status]:
    return {
        fingerprint: member.status
        for incident in story.situation.incidents.values()
        for fingerprint, member in incident.members.items()
        if member.open
    }
