"""Every transition between seen, believed, told and over."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_findings import NOW, check, finding, moment, outcome, unknown, well

from checks.base import Check, ClearRule, Finding, Status
from daemons.ledger import Entry, FindingState, Kind, Tracked
from daemons.node.judge import (
    DELIVERED,
    Habits,
    Moment,
    acknowledge,
    deliver,
    habits,
    judge,
    pass_time,
    resolve,
)


@dataclass
class Story:
    """One check's rows while runs and time go by."""

    check: Check = field(default_factory=check)
    rules: Habits = field(default_factory=lambda: Habits(clear=ClearRule.CLEAN_RUNS, events=False))
    rows: dict[str, Tracked] = field(default_factory=dict)

    def run(self, *found: Finding, at: Moment | float = 0.0, looked: bool = True) -> list[str]:
        when = at if isinstance(at, Moment) else moment(at)
        return self.take(judge(self.rows, outcome(self.check, *found, looked=looked), self.rules, when))

    def wait(self, at: Moment | float) -> list[str]:
        return self.take(pass_time(self.rows, self.rules, at if isinstance(at, Moment) else moment(at)))

    def take(self, entry: Entry) -> list[str]:
        self.rows.update(entry.put)
        gone = set(entry.forget) | {f for f, row in self.rows.items() if row.state is FindingState.CLEARED}
        self.rows = {f: row for f, row in self.rows.items() if f not in gone}
        return [f"{kind} {found.component}:{found.status}" for kind, found in entry.changes]

    @property
    def state(self) -> Mapping[str, str]:
        return {f: str(row.state) for f, row in self.rows.items()}


def events(clear: ClearRule = ClearRule.QUIET, **more: float) -> Story:
    rules = Habits(clear=clear, events=True, **more)  # type: ignore[arg-type]  # all numbers
    return Story(check(clear, events=True), rules)


def states(clear: ClearRule = ClearRule.CLEAN_RUNS, **more: float) -> Story:
    return Story(check(clear), Habits(clear=clear, events=False, **more))  # type: ignore[arg-type]  # all numbers


FAIL, OK = finding(), well()
WARN = finding(status=Status.WARN)


def test_a_trouble_is_opened_after_as_many_runs_as_declared() -> None:
    story = states(consecutive=3)
    assert [story.run(FAIL, at=t) for t in (0, 1, 2, 3)] == [[], [], ["opened gpu/3:fail"], []]
    assert story.rows["gpu/3:lost"].finding.count == 1


@pytest.mark.parametrize("between", [[OK], [finding(kind="hot")], [well("gpu/4")]])
def test_a_run_that_looked_and_did_not_see_it_begins_the_count_anew(between: list[Finding]) -> None:
    story = states(consecutive=2)
    story.run(FAIL)
    story.run(*between, at=1)
    assert "gpu/3:lost" not in story.rows
    assert story.run(FAIL, at=2) == []
    assert "opened gpu/3:fail" in story.run(FAIL, at=3)


def test_a_run_that_could_not_tell_neither_counts_nor_begins_anew() -> None:
    story = states(consecutive=2, unknown_grace=100)
    story.run(FAIL)
    assert story.run(unknown(), at=1, looked=False) == []
    assert story.run(FAIL, at=2) == ["opened gpu/3:fail"]


def test_troubles_during_boot_grace_are_opened_when_it_is_over_if_they_last() -> None:
    story = states(boot_grace=300)
    assert story.run(FAIL, at=moment(0, uptime=10)) == []
    assert story.wait(moment(289, uptime=299)) == []
    assert story.wait(moment(290, uptime=300)) == ["opened gpu/3:fail"]


def test_a_state_that_ends_within_boot_grace_is_never_told() -> None:
    story = states(boot_grace=300)
    story.run(FAIL, at=moment(0, uptime=10))
    assert story.run(OK, at=moment(60, uptime=70)) == []
    assert story.wait(moment(1000, uptime=1010)) == []


def test_an_event_within_boot_grace_is_told_after_it_though_no_run_sees_it_again() -> None:
    story = events(boot_grace=300)
    story.run(FAIL, at=moment(0, uptime=10))
    assert story.run(at=moment(1, uptime=11)) == []
    assert story.wait(moment(290, uptime=300)) == ["opened gpu/3:fail"]


def test_unknown_is_borne_for_its_grace_and_then_opened_by_time_alone() -> None:
    story = states(unknown_grace=120)
    assert story.run(unknown(), looked=False) == []
    assert story.wait(119.9) == []
    assert story.wait(120) == ["opened check/gpu_look:unknown"]


def test_unknown_ends_when_the_check_looks_again_whatever_the_checks_own_rule() -> None:
    for story in (states(ClearRule.ACKNOWLEDGED), states(ClearRule.REBOOT), events()):
        assert story.run(unknown(), looked=False) == ["opened check/gpu_look:unknown"]
        assert story.run(OK, at=1) == ["cleared check/gpu_look:unknown"]


def test_a_hung_door_ends_when_the_check_looks_again() -> None:
    story = states(clear_after=1)
    hung = finding("door/mount:/data", kind="hung")
    assert story.run(hung, looked=False) == ["opened door/mount:/data:fail"]
    assert story.run(unknown(), looked=False, at=1) == ["opened check/gpu_look:unknown"]
    assert story.run(OK, at=2) == ["cleared door/mount:/data:fail", "cleared check/gpu_look:unknown"]


def test_clean_runs_clear_it_and_the_change_says_how_it_is_now() -> None:
    story = states(clear_after=2)
    story.run(FAIL)
    assert story.run(OK, at=1) == []
    entry = judge(story.rows, outcome(story.check, OK), story.rules, moment(2))
    ((kind, found),) = entry.changes
    assert (kind, found.fingerprint, found.status, found.summary) == (Kind.CLEARED, "gpu/3:lost", Status.OK, OK.summary)


def test_a_relapse_begins_the_clean_count_anew() -> None:
    story = states(clear_after=2)
    story.run(FAIL)
    story.run(OK, at=1)
    assert story.run(FAIL, at=2) == []
    assert story.run(OK, at=3) == []
    assert story.run(OK, at=4) == ["cleared gpu/3:ok"]


@pytest.mark.parametrize(
    ("found", "looked"), [((), True), ((well("gpu/4"),), True), ((finding(status=Status.SKIPPED),), True), ((), False)]
)
def test_a_component_that_is_absent_or_skipped_is_not_well(found: tuple[Finding, ...], looked: bool) -> None:
    story = states()
    story.run(FAIL)
    for t in range(1, 10):
        assert story.run(*found, at=t, looked=looked) == []
    assert story.state == {"gpu/3:lost": "open"}


def test_what_a_run_found_well_before_it_failed_counts() -> None:
    story = states()
    story.run(FAIL)
    assert story.run(OK, looked=False, at=1) == ["cleared gpu/3:ok"]


def test_one_trouble_of_a_component_does_not_clear_another() -> None:
    story = states()
    story.run(FAIL)
    assert story.run(finding(kind="hot"), at=1) == ["opened gpu/3:fail"]
    assert story.state == {"gpu/3:lost": "open", "gpu/3:hot": "open"}


def test_worse_and_better_are_told_once_each() -> None:
    story = states()
    said = [story.run(f, at=t) for t, f in enumerate((WARN, WARN, FAIL, FAIL, WARN, WARN))]
    assert said == [["opened gpu/3:warn"], [], ["worsened gpu/3:fail"], [], ["eased gpu/3:warn"], []]


def test_the_worst_of_one_run_counts_once_for_a_state() -> None:
    story = states()
    assert story.run(WARN, FAIL, WARN) == ["opened gpu/3:fail"]
    assert story.rows["gpu/3:lost"].finding.count == 1


def test_first_seen_stays_and_last_seen_never_comes_before_it() -> None:
    story = states()
    story.run(FAIL)
    story.run(finding(last_seen=NOW + 60, first_seen=NOW + 60), at=60)
    row = story.rows["gpu/3:lost"].finding
    assert (row.first_seen, row.last_seen) == (NOW, NOW + 60)
    story.run(finding(last_seen=NOW - 5000, first_seen=NOW - 5000), at=120)  # the wall clock stepped back
    row = story.rows["gpu/3:lost"].finding
    assert (row.first_seen, row.last_seen) == (NOW, NOW)


def test_reboot_clears_only_once_a_run_of_the_new_boot_found_it_well() -> None:
    story = states(ClearRule.REBOOT)
    story.run(FAIL)
    assert story.run(OK, at=1) == []
    rebooted = moment(0, boot="boot2", uptime=60)
    assert story.run(unknown(), at=rebooted, looked=False) == ["opened check/gpu_look:unknown"]
    assert "cleared gpu/3:ok" in story.run(OK, at=rebooted)


def test_what_is_still_there_after_the_reboot_needs_another() -> None:
    story = states(ClearRule.REBOOT)
    story.run(FAIL)
    story.run(finding(boot_id="boot2"), at=moment(0, boot="boot2"))
    assert story.run(OK, at=moment(1, boot="boot2")) == []
    assert story.run(OK, at=moment(0, boot="boot3")) == ["cleared gpu/3:ok"]


def test_an_event_that_a_reboot_cures_is_cleared_by_the_first_run_that_looks_without_it() -> None:
    story = events(ClearRule.REBOOT)
    story.run(FAIL)
    assert story.run(at=1) == []
    assert story.run(at=moment(0, boot="boot2")) == ["cleared gpu/3:fail"]


def test_a_findings_own_rule_goes_before_the_checks() -> None:
    story = events(ClearRule.QUIET, quiet_seconds=10)
    story.run(finding(clear=ClearRule.REBOOT))
    assert story.run(at=1000) == []
    assert story.run(at=moment(0, boot="boot2")) == ["cleared gpu/3:fail"]


def test_quiet_clears_only_by_runs_that_looked() -> None:
    story = events(quiet_seconds=100)
    story.run(FAIL)
    assert story.run(at=99) == []
    assert story.wait(500) == []
    assert story.run(unknown(), at=501, looked=False) == ["opened check/gpu_look:unknown"]
    assert story.run(at=502) == ["cleared gpu/3:fail", "cleared check/gpu_look:unknown"]


def test_quiet_counts_from_the_last_time_it_came() -> None:
    story = events(quiet_seconds=100)
    story.run(FAIL)
    story.run(FAIL, at=90)
    assert story.run(at=189) == []
    assert story.run(at=190) == ["cleared gpu/3:fail"]


def test_quiet_across_a_reboot_counts_no_more_than_the_new_boot_has_seen() -> None:
    story = events(quiet_seconds=100)
    story.run(FAIL)
    assert story.run(at=moment(0, boot="boot2", uptime=99)) == []
    assert story.run(at=moment(1, boot="boot2", uptime=100)) == ["cleared gpu/3:fail"]


def test_only_a_person_ends_what_is_to_be_acknowledged() -> None:
    story = states(ClearRule.ACKNOWLEDGED)
    story.run(FAIL)
    assert story.run(OK, at=moment(10_000, boot="boot9")) == []
    assert story.take(acknowledge(story.rows.values())) == ["acknowledged gpu/3:fail"]
    assert story.take(acknowledge(story.rows.values())) == []
    assert story.run(OK, at=moment(20_000, boot="boot9")) == []
    assert story.take(resolve(story.rows.values(), "resolved by ann", moment())) == ["cleared gpu/3:skipped"]
    assert story.rows == {}


def test_an_acknowledged_one_that_worsens_is_open_again() -> None:
    story = states()
    story.run(WARN)
    story.take(acknowledge(story.rows.values()))
    assert story.state == {"gpu/3:lost": "acknowledged"}
    assert story.run(FAIL, at=1) == ["worsened gpu/3:fail"]
    assert story.state == {"gpu/3:lost": "open"}


def test_what_a_person_resolved_and_is_still_there_is_opened_again() -> None:
    story = states(consecutive=2)
    story.run(FAIL)
    story.run(FAIL, at=1)
    story.take(resolve(story.rows.values(), "resolved", moment(2)))
    assert [story.run(FAIL, at=3), story.run(FAIL, at=4)] == [[], ["opened gpu/3:fail"]]


def test_events_count_up_and_their_repetition_is_told_at_most_once_a_minute() -> None:
    story = events()
    assert story.run(FAIL, FAIL) == ["opened gpu/3:fail"]
    assert [story.run(FAIL, at=t) for t in (10, 20)] == [[], []]
    assert story.rows["gpu/3:lost"].finding.count == 4
    assert story.wait(59) == []
    assert story.wait(60) == ["repeated gpu/3:fail"]
    assert story.wait(600) == []
    assert story.run(finding(count=5), at=700) == ["repeated gpu/3:fail"]
    assert story.rows["gpu/3:lost"].finding.count == 9


def test_a_pending_event_is_not_forgotten_by_runs_that_do_not_see_it_until_it_is_old() -> None:
    story = events(consecutive=2, quiet_seconds=100)
    story.run(FAIL)
    story.run(at=50)
    assert story.run(FAIL, at=60) == ["opened gpu/3:fail"]
    late = events(consecutive=2, quiet_seconds=100)
    late.run(FAIL)
    late.run(at=100)
    assert late.rows == {}


def test_a_pending_state_counts_anew_after_a_reboot() -> None:
    story = states(consecutive=2)
    story.run(FAIL)
    assert story.run(FAIL, at=moment(0, boot="boot2")) == []
    assert story.run(FAIL, at=moment(1, boot="boot2")) == ["opened gpu/3:fail"]


def test_rows_that_went_through_the_file_go_on_where_they_were() -> None:
    story = states(consecutive=3)
    story.run(FAIL)
    story.run(FAIL, at=1)
    raw = msgspec.json.encode(story.rows)
    restarted = states(consecutive=3)
    restarted.rows = msgspec.json.decode(raw, type=dict[str, Tracked])
    assert restarted.run(FAIL, at=2) == ["opened gpu/3:fail"]


def test_delivered_troubles_are_opened_at_once_and_an_ok_of_their_kind_ends_them() -> None:
    story = Story(rules=DELIVERED)
    job = finding("job/7", kind="failed")
    other = finding("job/7", kind="slow")
    assert story.take(deliver(story.rows, [job, other], moment())) == ["opened job/7:fail", "opened job/7:fail"]
    assert {row.clear for row in story.rows.values()} == {ClearRule.ACKNOWLEDGED}
    fine = finding("job/7", Status.OK, "failed")
    assert story.take(deliver(story.rows, [fine], moment(1))) == ["cleared job/7:ok"]
    assert story.take(deliver(story.rows, [finding("job/8", Status.OK, "")], moment(2))) == []
    assert story.take(deliver(story.rows, [finding("job/7", Status.OK, "")], moment(3))) == ["cleared job/7:ok"]
    assert story.rows == {}


def test_trouble_and_its_end_in_one_delivery_are_both_told() -> None:
    story = Story(rules=DELIVERED)
    both = [finding("job/7", kind="failed"), finding("job/7", Status.OK, "failed")]
    assert story.take(deliver(story.rows, both, moment())) == ["opened job/7:fail", "cleared job/7:ok"]
    again = [*both, both[0]]
    assert story.take(deliver(story.rows, again, moment(1)))[2:] == ["opened job/7:fail"]
    assert story.state == {"job/7:failed": "open"}


def test_delivered_findings_that_go_quiet_or_end_with_the_boot_are_cleared_by_time() -> None:
    story = Story(rules=DELIVERED)
    quiet = finding("job/7", kind="slow", clear=ClearRule.QUIET)
    boot = finding("gpu/1", kind="bad", clear=ClearRule.REBOOT)
    story.take(deliver(story.rows, [quiet, boot], moment()))
    assert story.wait(3599) == []
    assert story.wait(3600) == ["cleared job/7:fail"]
    assert story.wait(moment(0, boot="boot2")) == ["cleared gpu/1:fail"]


def test_a_check_is_judged_by_what_it_declared_and_how_it_is_configured() -> None:
    declared = check(ClearRule.QUIET, events=True)
    told = declared.config(consecutive=4, boot_grace=5, unknown_grace=6, clear_after=7, quiet_seconds=8)
    got = habits(declared, told)
    assert (got.consecutive, got.boot_grace, got.unknown_grace, got.clear_after) == (4, 5, 6, 7)
    assert (got.quiet_seconds, got.clear, got.events, got.delivered) == (8, ClearRule.QUIET, True, False)


SEEN = st.sampled_from(["fail", "warn", "ok", "absent", "blind"])


@given(runs=st.lists(SEEN, max_size=40), consecutive=st.integers(1, 3), clear_after=st.integers(1, 3))
def test_changes_of_a_finding_always_make_sense_and_agree_with_a_plain_count(
    runs: list[str], consecutive: int, clear_after: int
) -> None:
    """Opened and cleared alternate, and both come exactly when a naive count says so."""
    story = states(consecutive=consecutive, clear_after=clear_after, unknown_grace=1e9)
    bad = good = 0
    is_open, told = False, "ok"
    for t, seen in enumerate(runs):
        found = {"fail": [FAIL], "warn": [WARN], "ok": [OK], "absent": [], "blind": [unknown()]}[seen]
        said = story.run(*found, at=t, looked=seen != "blind")
        expected = []
        if seen in ("fail", "warn"):
            bad, good = bad + 1, 0
            if not is_open and bad >= consecutive:
                is_open, expected = True, [f"opened gpu/3:{seen}"]
            elif is_open and seen != told:
                expected = [f"{'worsened' if seen == 'fail' else 'eased'} gpu/3:{seen}"]
            told = seen
        elif seen in ("ok", "absent"):
            bad = 0
            good += seen == "ok" and is_open
            if is_open and good >= clear_after:
                is_open, good, expected = False, 0, ["cleared gpu/3:ok"]
        assert said == expected, (t, seen)
