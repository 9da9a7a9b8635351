"""The agent's judgement over hours of replayed life: nothing of health is a finding, and what is over is cleared."""

from pathlib import Path

import pytest
from replayed_life import live, opened

from checks.registry import CHECKS

GPU_CHECKS = [check for check in CHECKS if check.run.__module__.startswith("checks.gpu.")]


@pytest.mark.slow
def test_a_day_of_healthy_life_opens_nothing(tmp_path: Path) -> None:
    """Boot with links training, two jobs, a driver reload, a kernel log that wraps, a planned reboot."""
    assert opened(live("h100x8_healthy_day", tmp_path, CHECKS, seconds=86_400)) == []


def test_links_that_train_after_boot_open_nothing(tmp_path: Path) -> None:
    assert opened(live("h100x8_just_booted", tmp_path, GPU_CHECKS, seconds=900)) == []


def test_a_planned_reboot_opens_nothing(tmp_path: Path) -> None:
    assert opened(live("h100x8_planned_reboot", tmp_path, GPU_CHECKS, seconds=1200)) == []


def test_a_gpu_that_falls_off_the_bus_is_found_by_two_ways_and_neither_clears_by_itself(tmp_path: Path) -> None:
    changes = live("h100x8_one_gpu_lost", tmp_path, GPU_CHECKS, seconds=900)
    assert sorted(opened(changes)) == ["gpu_count gpu/3 fail lost", "xid gpu/3 fail xid154", "xid gpu/3 fail xid79"]
    assert [change.kind for change in changes if change.kind == "cleared"] == []


def test_a_silent_gpu_is_found_within_two_intervals(tmp_path: Path) -> None:
    changes = live("h100x8_gpu_hangs", tmp_path, GPU_CHECKS, seconds=130)
    assert opened(changes) == ["gpu_count gpu/2 fail hung"]


def test_xid_79_is_over_after_the_reboot_and_comes_back_for_inspection(tmp_path: Path) -> None:
    changes = live("h100x8_xid79_after_reboot", tmp_path, GPU_CHECKS, seconds=1000)
    told = [(change.kind, change.finding.advice.split(":")[0], str(change.finding.clear)) for change in changes]
    assert [kind for kind, _, _ in told] == ["opened", "cleared", "opened"]
    assert told[2][1:] == ("a reboot did not cure it", "acknowledged")


def test_a_job_that_was_killed_is_no_finding(tmp_path: Path) -> None:
    assert opened(live("h100x8_job_killed", tmp_path, GPU_CHECKS, seconds=120)) == []
