"""The XID policy is data: whole, consistent and open to a site's own judgement."""

from pathlib import Path

import pytest

from checks.base import ClearRule, Status
from checks.gpu.xid_policy import UNLISTED, Override, XidMeaning, action, advice, load, meaning, sources

CODES = sorted(load().items())


def test_every_code_of_the_catalogue_is_there() -> None:
    assert sorted(load()) == list(range(1, 173))


@pytest.mark.parametrize(("code", "entry"), CODES, ids=[str(code) for code, _ in CODES])
def test_an_entry_is_complete(code: int, entry: XidMeaning) -> None:
    assert entry.meaning
    assert entry.source in sources()
    assert entry.status in (Status.OK, Status.WARN, Status.FAIL)
    assert entry.status is Status.OK or entry.cause.startswith("gpu."), "a trouble has a cause of the taxonomy"
    assert advice(code)
    for word in (entry.immediate, entry.investigate):
        assert not word or action(word)
    if entry.fault == "unused":
        assert entry.status is not Status.OK or code == 108
    milder = entry.immediate == "RESET_GPU" and entry.status is not Status.FAIL
    harder = entry.immediate == "IGNORE" and entry.status is not Status.OK
    if milder or harder:
        assert entry.why, "where we differ from NVIDIA's action we say why"


@pytest.mark.parametrize(
    ("code", "status", "cause", "clear"),
    [
        (13, Status.OK, "gpu.compute_fault", ClearRule.QUIET),
        (43, Status.OK, "gpu.compute_fault", ClearRule.QUIET),
        (45, Status.OK, "gpu.compute_fault", ClearRule.QUIET),
        (48, Status.FAIL, "gpu.memory_ecc", ClearRule.REBOOT),
        (63, Status.WARN, "gpu.memory_ecc", ClearRule.REBOOT),
        (64, Status.FAIL, "gpu.memory_ecc", ClearRule.ACKNOWLEDGED),
        (74, Status.FAIL, "gpu.nvlink", ClearRule.REBOOT),
        (79, Status.FAIL, "gpu.lost", ClearRule.REBOOT),
        (94, Status.WARN, "gpu.memory_ecc", ClearRule.REBOOT),
        (95, Status.FAIL, "gpu.memory_ecc", ClearRule.REBOOT),
        (109, Status.FAIL, "gpu.driver", ClearRule.REBOOT),
        (119, Status.FAIL, "gpu.driver", ClearRule.REBOOT),
    ],
)
def test_the_codes_that_matter_most(code: int, status: Status, cause: str, clear: ClearRule) -> None:
    found = meaning(code)
    assert (found.status, found.cause, found.clear) == (status, cause, clear)


def test_a_code_newer_than_the_catalogue_warns() -> None:
    assert meaning(999) is UNLISTED
    assert advice(999) == "run the vendor's diagnostics and open a case with `nvidia-bug-report.sh`"


def test_a_site_overrides_single_words_of_an_entry() -> None:
    overrides = {79: Override(status="warn", advice="call the hall team")}
    found = meaning(79, overrides)
    assert (found.status, found.cause, found.clear) == (Status.WARN, "gpu.lost", ClearRule.REBOOT)
    assert found.why == "overridden by this site's configuration"
    assert advice(79, overrides) == "call the hall team"
    assert advice(79) == (
        "drain and reboot the node; then run the vendor's diagnostics and open a case with `nvidia-bug-report.sh`"
    )


def test_the_file_is_small() -> None:
    assert (Path(__file__).parents[2] / "checks/gpu/xid.toml").stat().st_size < 60_000
