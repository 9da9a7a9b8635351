"""Alert and recording rules: whole, proven by promtool, and of metrics that exist."""

import re
import subprocess
from pathlib import Path

import pytest
from alert_rules import ALERTS
from build import DASHBOARDS, files
from exposed_metrics import GOLDEN, exposed, labels_in, metrics_in
from needs import need
from recording_rules import RECORDS
from rules import Alert, Record

ROOT = Path(__file__).parents[2]
PROMETHEUS = DASHBOARDS / "prometheus"
RULES: tuple[Alert | Record, ...] = (*ALERTS, *RECORDS)
RECORDED = {record.name for record in RECORDS}


def test_what_is_written_is_what_the_sources_say() -> None:
    written = {name: (DASHBOARDS / name).read_text() for name in files()}
    assert written == dict(files()), "run `make dashboards`"
    assert {path.stem for path in PROMETHEUS.glob("tests/*.yml")} == {alert.name for alert in ALERTS}


def test_promtool_takes_the_rules() -> None:
    need("promtool")
    command = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", "recording.yml", "alerts.yml"]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_not_before_their_time_resolve_and_are_silent_on_a_well_node() -> None:
    need("promtool")
    proofs = sorted(path.name for path in PROMETHEUS.glob("tests/*.yml"))
    command = ["promtool", "test", "rules", *proofs]
    done = subprocess.run(command, cwd=PROMETHEUS / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(ALERTS)


def test_a_wrong_expectation_fails_promtool(tmp_path: Path) -> None:
    """The tests above can fail: the same file with another number in it does."""
    need("promtool")
    proof = (PROMETHEUS / "tests/MusterGpuMissing.yml").read_text().replace("../", f"{PROMETHEUS}/")
    (tmp_path / "t.yml").write_text(proof.replace("'7x60 8x60'", "'8x60 8x60'"))
    done = subprocess.run(["promtool", "test", "rules", "t.yml"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1


def test_every_metric_of_a_rule_exists() -> None:
    known = exposed()
    used = {name for rule in RULES for name in metrics_in(rule.expr)}
    assert used - set(known) == set()
    recorded = {name for rule in RULES for name in re.findall(r"\w+:\w+:\w+", rule.expr)}
    assert recorded - RECORDED == set()


def test_every_metric_of_a_rule_is_in_the_golden_page() -> None:
    families = set(re.findall(r"^# TYPE (\S+)", GOLDEN.read_text(), re.MULTILINE))
    used = {name for rule in RULES for name in metrics_in(rule.expr)}
    # Shown only where a fleet is configured; test_metrics.py holds it.
    assert used - families == {"up", "muster_fleet_link_last_success_timestamp_seconds"}


def test_every_label_of_a_rule_exists_on_one_of_its_metrics() -> None:
    known = exposed()
    for rule in RULES:
        here = {label for name in metrics_in(rule.expr) for label in known[name]}
        recorded = [record for record in RECORDS if record.name in rule.expr]
        here |= {label for record in recorded for name in metrics_in(record.expr) for label in known[name]}
        assert labels_in(rule.expr) - here == set(), rule.expr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alert_says_what_how_bad_and_what_to_do(alert: Alert) -> None:
    assert alert.summary and alert.advice.endswith(".")
    page = (ROOT / alert.runbook).read_text()
    assert page.startswith(f"# {alert.name}\n")
    parts = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert parts == ["How to confirm", "What to do", "When to call the vendor"]


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    pages = {path.stem for path in (ROOT / "docs/runbooks").glob("Muster*.md")}
    assert pages == {alert.name for alert in ALERTS}


def test_names_in_an_expression_are_found() -> None:
    expr = 'sum by (a, b) (rate(muster_x_total{c="muster_y",d!="z"}[5m])) > on (e) group_left (f) up'
    assert metrics_in(expr) == {"muster_x_total", "up"}
    assert labels_in(expr) == {"a", "b", "c", "d", "e", "f"}
