"""Writes what this directory is the source of: `make dashboards`."""

from collections.abc import Mapping
from pathlib import Path

import rule_files
from alert_rules import ALERTS

DASHBOARDS = Path(__file__).parents[1]


def files() -> Mapping[str, str]:
    """Every file below dashboards/ that is written, with its content."""
    return {
        "prometheus/recording.yml": rule_files.recording(),
        "prometheus/alerts.yml": rule_files.alerts(),
        **{f"prometheus/tests/{alert.name}.yml": rule_files.proofs(alert) for alert in ALERTS},
    }


def write() -> None:
    """Write them all; what an alert of old left behind goes."""
    for old in DASHBOARDS.glob("prometheus/tests/*.yml"):
        old.unlink()
    for name, content in files().items():
        path = DASHBOARDS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    write()
