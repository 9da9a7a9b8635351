"""docs/checks.md is what the code says now, and says of every check what a reader needs."""

from pathlib import Path

import pytest

from checks.base import Check
from checks.documentation import page
from checks.registry import CHECKS

PAGE = page()
DOCS = Path(__file__).parent.parent.parent / "docs/checks.md"


def section(name: str) -> str:
    return PAGE.split(f"### {name}\n", 1)[1].split("\n### ", 1)[0]


def test_page_is_fresh() -> None:
    assert DOCS.read_text() == PAGE, "run `python -m checks.documentation > docs/checks.md`"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_says_what_it_reads_and_what_clears_it(check: Check) -> None:
    text = section(check.name)
    assert "Reads: nothing of the machine" not in text
    assert "Cleared by" in text
    for metric in check.metrics:
        assert f"`muster_{metric}`" in text


def test_what_is_read_is_found_in_the_source() -> None:
    assert "Reads: `/proc/meminfo`." in section("memory")
    text = section("clock_sync")
    assert "Reads: `/proc/cpuinfo`; `chronyc -c -n tracking`; adjtimex(2)." in text
    assert "`/sys/class/infiniband`" in section("ib_port")


def test_advice_thresholds_and_rules_are_there() -> None:
    text = section("memory")
    assert "- see who holds it: `ps -eo rss,user,args --sort=-rss | head`" in text
    assert "| `warn_percent` | `5.0` |" in text
    assert "Opened by 2 runs in a row. Cleared by 2 runs that look and no longer see it." in text
    assert "| `oom_kill` | warn | `host.out_of_memory` |" in section("kernel_log")
