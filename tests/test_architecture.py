"""The rules of the house that a reader relies on, held by tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("checks", "classifiers", "daemons", "trainer")

# checks <- classifiers <- daemons; the trainer stands alone. A daemon may import the beat's reader and writer:
# one stdlib-only module that a user's process imports too.
MAY_IMPORT = {
    "checks": set(),
    "classifiers": {"checks"},
    "daemons": {"checks", "classifiers", "trainer.beat"},
    "trainer": set(),
}

# Every process that muster starts is started behind one of these doors.
PROCESS_DOORS = {
    "checks/host.py",  # commands with a deadline
    "checks/prober.py",  # killable children
    "checks/pairs/launch.py",  # resident workers of a sweep, with a pipe each way
    "daemons/supervisor/launch.py",  # a user's job
    "daemons/demo/job.py",  # the demonstration's own job
    "daemons/engines/local.py",  # jobs of the engine "local", which outlive the daemon
}


def sources(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_follow_the_arrow(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    against = [
        f"{path}:{line} imports {name}"
        for path, tree in sources(package)
        for line, name in imported(tree)
        if name.split(".")[0] in PACKAGES
        and not any(name == a or name.startswith(f"{a}.") or a.startswith(f"{name}.") for a in allowed)
    ]
    assert against == []


@pytest.mark.parametrize("package", ["checks", "classifiers", "daemons"])
def test_processes_start_behind_a_door(package: str) -> None:
    starts = (
        "subprocess",
        "os.system",
        "os.popen",
        "os.fork",
        "os.spawn",
        "os.posix_spawn",
        "multiprocessing",
    )
    found = []
    for path, tree in sources(package):
        if path in PROCESS_DOORS:
            continue
        found += [f"{path}:{line} imports {name}" for line, name in imported(tree) if name in starts]
        found += [
            f"{path}:{node.lineno} calls {ast.unparse(node.func)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(starts)
        ]
    assert found == []


def test_no_package_imports_torch_outside_the_trainer() -> None:
    found = [
        f"{path}:{line}"
        for package in ("checks", "classifiers", "daemons")
        for path, tree in sources(package)
        for line, name in imported(tree)
        if name.split(".")[0] == "torch" and not path.startswith(("checks/pairs/workers/", "daemons/supervisor/job/"))
    ]
    assert found == [], "the agent must not need torch: only files that run inside a job's process may import it"


def test_metrics_are_in_base_units_as_promtool_asks() -> None:
    from checks.registry import CHECKS

    odd = ("bits", "milliseconds", "ms", "kilobytes", "percent", "fahrenheit", "mb", "gb", "ghz", "mhz")
    found = [name for check in CHECKS for name in check.metrics if set(name.split("_")) & set(odd)]
    assert found == [], "bytes, seconds, ratio, hertz: see `promtool check metrics`"
