"""Writes rules, and their tests, as Prometheus reads them; no YAML library is needed for that."""

import json
import re
from collections.abc import Mapping

from alert_rules import GROUPS
from recording_rules import RECORDS
from rules import Alert

_HEAD = "# Written by `make dashboards` from dashboards/source: change it there.\n"


def recording() -> str:
    """recording.yml"""
    lines = [_HEAD + "groups:", "- name: muster recorded", "  rules:"]
    for record in RECORDS:
        lines += [
            f"  - record: {record.name}",
            f"    expr: {_text(record.expr)}",
            *_mapping("    labels", record.labels),
        ]
    return "\n".join(lines) + "\n"


def alerts() -> str:
    """alerts.yml"""
    lines = [_HEAD + "groups:"]
    for name, group in GROUPS.items():
        lines += [f"- name: {name}", "  rules:"]
        for alert in group:
            lines += [
                f"  - alert: {alert.name}",
                f"    expr: {_text(alert.expr)}",
                f"    for: {alert.lasting}",
                *_mapping("    labels", {"severity": alert.severity}),
                *_mapping("    annotations", _annotations(alert)),
            ]
    return "\n".join(lines) + "\n"


def proofs(alert: Alert) -> str:
    """tests/NAME.yml: fires and does not before its time, resolves, and does not fire on a well node."""
    proof = alert.proof
    sick = {series: f"{during} {after}" for series, (during, after) in proof.sick.items()}
    labels = {**proof.labels, "severity": alert.severity}
    lines = [_HEAD + "rule_files: [../recording.yml, ../alerts.yml]", f"evaluation_interval: {proof.step}m", "tests:"]
    lines += [
        f"- name: {json.dumps(f'{alert.name} fires, then resolves')}",
        *_series(sick, proof.step),
        "  alert_rule_test:",
    ]
    if proof.silent >= 0:
        lines += _expect(alert, proof.silent, None)
    lines += [*_expect(alert, proof.fires, labels), *_expect(alert, proof.resolved, None)]
    lines += [
        f"- name: {json.dumps(f'{alert.name} does not fire')}",
        *_series(proof.well, proof.step),
        "  alert_rule_test:",
    ]
    for sample in (1, 30, 59):
        lines += _expect(alert, sample * proof.step, None)
    return "\n".join(lines) + "\n"


def _annotations(alert: Alert) -> Mapping[str, str]:
    return {"summary": alert.summary, "advice": alert.advice, "runbook": alert.runbook}


def _series(series: Mapping[str, str], step: int) -> list[str]:
    lines = [f"  interval: {step}m", "  input_series:"]
    for name, values in series.items():
        lines += [f"  - series: {_text(name)}", f"    values: {_text(values)}"]
    return lines


def _expect(alert: Alert, minute: int, labels: Mapping[str, str] | None) -> list[str]:
    """That the alert fires with these labels and the texts that they make, or (None) that it does not."""
    lines = [f"  - eval_time: {minute}m", f"    alertname: {alert.name}"]
    if labels is None:
        return [*lines, "    exp_alerts: []"]
    texts = {name: _filled(text, labels, alert.proof.value) for name, text in _annotations(alert).items()}
    lines += ["    exp_alerts:", f"    - exp_labels: {json.dumps(dict(labels))}"]
    return [*lines, *_mapping("      exp_annotations", texts)]


def _filled(text: str, labels: Mapping[str, str], value: str) -> str:
    text = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)
    return re.sub(r"{{ \$value[^}]*}}", value, text)


def _mapping(name: str, values: Mapping[str, str]) -> list[str]:
    indent = " " * (len(name) - len(name.lstrip()) + 2)
    return [f"{name}:", *(f"{indent}{key}: {_text(value)}" for key, value in values.items())] if values else []


def _text(value: str) -> str:
    """In single quotes, which leave PromQL's own double quotes and backslashes alone."""
    return "'" + value.replace("'", "''") + "'"
