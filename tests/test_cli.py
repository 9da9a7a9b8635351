"""The command line: quick to start, errors in one line, scan and daemon the same objects."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemons.cli import COMMANDS


def muster(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-m", "daemons", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)


def test_help_lists_every_command_and_imports_none() -> None:
    probe = (
        "import sys\nfrom daemons.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.stderr.write(','.join(m for m in ('msgspec','rich','starlette','slack_sdk','httpx') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    listed = [line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines() if line.strip()]
    assert [name for name in listed if name in {entry.name for entry in COMMANDS}] == [e.name for e in COMMANDS]


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_answers_help(entry: object) -> None:
    assert muster(entry.name, "--help").returncode == 0  # type: ignore[attr-defined]


def test_unknown_key_is_one_line_that_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("[checks.memory]\nwarn_percet = 3\n")
    done = muster("--config", str(path), "scan")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"muster: {path}: checks.memory.warn_percet: unknown key; known here: boot_grace, clear_after, consecutive, "
        "deadline, enabled, fail_percent, interval, quiet_seconds, unknown_grace, warn_percent"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[checks.memory]\nwarn_percent = 101\n",
            "checks.memory.warn_percent: 101 is wrong: expected `float` <= 100.0",
        ),
        ("[checks.memory]\ninterval = 'x'\n", "checks.memory.interval: 'x' is wrong: expected `float`, got `str`"),
        ("[node]\nlisten = 5\n", "node.listen: 5 is wrong: expected `str`, got `int`"),
    ],
)
def test_wrong_values_name_the_key_and_what_would_be_right(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    done = muster("config", "check", str(path))
    assert (done.returncode, done.stderr) == (2, f"muster: {path}: {said}\n")


def test_secrets_in_the_file_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("[alerts.slack]\ntoken = 'xoxb-1'\n")
    done = muster("config", "check", str(path))
    assert done.returncode == 2
    assert "alerts.slack.token: secrets do not belong in the file" in done.stderr
    assert "xoxb-1" not in done.stderr


def test_unreadable_configuration_is_one_line(tmp_path: Path) -> None:
    done = muster("--config", str(tmp_path / "none.toml"), "scan")
    assert (done.returncode, done.stderr) == (
        2,
        f"muster: {tmp_path}/none.toml: cannot be read: No such file or directory\n",
    )


def test_scan_json_is_one_object_of_the_contract() -> None:
    done = muster("scan", "--check", "memory", "--json")
    report = json.loads(done.stdout)
    assert sorted(report) == ["findings", "node", "seconds", "status"]
    assert [finding["source"] for finding in report["findings"]] == ["memory"]


def test_hostile_directory_and_pythonpath_cannot_shadow_the_suite(tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "__init__.py").write_text("raise SystemExit('shadowed')")
    command = [sys.executable, "-I", "-m", "daemons", "--version"]
    env = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
