"""Every recorded scenario gives exactly the GPU troubles that it was made for, and no other."""

import pytest
from scenarios import names, play, scenario, told

from checks.base import Status
from checks.registry import CHECKS

GPU_CHECKS = [check for check in CHECKS if check.run.__module__.startswith("checks.gpu.")]


@pytest.mark.parametrize("name", names())
def test_a_scenario_gives_exactly_its_troubles(name: str) -> None:
    expected = [line for line in scenario(name).expect if line.split()[0] in {check.name for check in GPU_CHECKS}]
    assert told(name, GPU_CHECKS) == sorted(expected)


def test_there_are_at_least_forty_scenarios() -> None:
    assert len([name for name in names() if scenario(name).base]) >= 40


@pytest.mark.parametrize("name", [name for name in names() if scenario(name).base])
def test_a_scenario_says_what_it_is_about(name: str) -> None:
    assert scenario(name).about.endswith(".")


@pytest.mark.parametrize(
    "name", ["h100x8_healthy", "h200x8_healthy", "a100x8_healthy", "gb200x4_healthy", "workstation_rtx4090_healthy"]
)
def test_a_healthy_node_is_seen_well_by_the_checks_that_matter(name: str) -> None:
    ((_, _, outcomes),) = play(name, GPU_CHECKS)
    well = {outcome.check.name for outcome in outcomes if outcome.status is Status.OK}
    assert {"gpu_count", "xid", "temperature", "power", "clocks", "pcie_link", "throttle"} <= well


def test_a_machine_without_gpu_is_skipped_and_never_ok() -> None:
    ((_, _, outcomes),) = play("cpu_node_no_gpu", GPU_CHECKS)
    statuses = {outcome.check.name: outcome.status for outcome in outcomes}
    log = {"xid": Status.OK, "sxid": Status.OK}  # these two read the kernel log, which is there
    assert statuses == {check.name: log.get(check.name, Status.SKIPPED) for check in GPU_CHECKS}
