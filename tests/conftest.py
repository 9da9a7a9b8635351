"""Shared by all tests: options, and the list of what this machine lacked."""

import re

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmarks", action="store_true", help="run tests/benchmarks (minutes; not in CI)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--benchmarks"):
        return
    kept = [item for item in items if "benchmarks" not in item.path.parts]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lacked: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if match := re.search(r"needs (.+)$", reason):
            lacked[match[1]] = lacked.get(match[1], 0) + 1
    if lacked:
        terminalreporter.section("what this machine lacked")
        for what, count in sorted(lacked.items()):
            terminalreporter.write_line(f"{what}   ({count} skipped)")
