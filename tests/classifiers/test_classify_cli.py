"""`muster classify` and `muster rules` as people call them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemons.cli import muster
from daemons.errors import MusterError

LOG = "[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB.\n"
RULE = """
[[rule]]
id = "site-fan"
cause = "gpu.thermal_power"
pattern = 'FANWALL degraded'
why = "Our own monitor."
source = "site"
examples = ["FANWALL degraded"]
near_misses = ["FANWALL fine"]
"""


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(muster, arguments, input=stdin, standalone_mode=False)


def test_json_is_one_object_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    path.write_text("ok\n" + LOG)
    said = json.loads(run("classify", "--json", str(path)).output)
    keys = {"cause", "confidence", "evidence", "rank", "host", "cascades", "advice", "seconds", "bytes"}
    assert keys <= set(said)
    assert (said["cause"], said["rank"], said["bytes"]) == ("gpu.out_of_memory", 3, 3 + len(LOG))
    assert said["evidence"] == {"file": str(path), "line": 2, "text": LOG.strip()}


def test_people_are_told_cause_place_and_next_command() -> None:
    lines = run("classify", "-", stdin=LOG).output.splitlines()
    assert lines[0] == "gpu.out_of_memory   confidence 0.86"
    assert lines[1:4] == ["  -:1", f"  {LOG.strip()}", "first: rank 3"]
    assert lines[-1].startswith("next: Run `nvidia-smi` on NODE")


def test_explain_shows_who_lost_and_why() -> None:
    output = run("classify", "--explain", "-", stdin=LOG + "Sending process 7 closing signal SIGTERM\n").output
    assert "cuda-out-of-memory (gpu.out_of_memory, root 86, 1x) -:1: chosen" in output
    assert "launcher-closing (host.preempted, cascade 7, 1x) -:2: a consequence, and there is a root" in output


def test_a_healthy_log_is_said_to_be_one() -> None:
    assert run("classify", "-", stdin="step 1 loss 2.0\n").output.startswith("none   confidence 0.95   nothing in here")


def test_rules_of_the_configuration_and_of_the_command_line_count(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "own.toml").write_text(RULE)
    (tmp_path / "muster.toml").write_text(f'[classify]\nrules = ["{rules}"]\n')
    configured = run("--config", str(tmp_path / "muster.toml"), "classify", "--json", "-", stdin="FANWALL degraded\n")
    named = run("classify", "--rules", str(rules), "--json", "-", stdin="FANWALL degraded\n")
    assert [json.loads(one.output)["cause"] for one in (configured, named)] == ["gpu.thermal_power"] * 2


def test_a_failure_named_by_its_fingerprint_is_known_next_time(tmp_path: Path) -> None:
    log = "frobnicator 17 broke\nprocess exited with code 3\n"
    first = json.loads(run("classify", "--json", "-", stdin=log).output)
    assert first["cause"] == "unknown"
    named = f'[[named]]\nfingerprint = "{first["fingerprint"]}"\ncause = "program.config"\nname = "frobnicator"\n'
    (tmp_path / "names.toml").write_text(named)
    again = run("classify", "--rules", str(tmp_path), "--json", "-", stdin=log.replace("17", "99"))
    assert json.loads(again.output)["cause"] == "program.config"


def test_rules_test_fails_for_an_example_that_does_not_match(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(RULE.replace('examples = ["FANWALL degraded"]', 'examples = ["fan degraded"]'))
    done = run("rules", "test", str(tmp_path))
    assert "wrong: site-fan: its example does not match: fan degraded" in done.output
    assert done.return_value == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("classify", "/none/such.log"), "/none/such.log: no such file or directory"),
        (("classify", "--rules", "/none/rules", "-"), "/none/rules: is not a directory of rules (*.toml)"),
    ],
)
def test_what_a_user_got_wrong_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments, stdin="")
    assert isinstance(done.exception, MusterError)
    assert str(done.exception) == said
