"""The systemd units: understood by systemd, and exposed no more than each job needs."""

import subprocess
from pathlib import Path

import pytest
from needs import need

UNITS = Path(__file__).parents[2] / "deploy/systemd"


def exposure(unit: str) -> float:
    """systemd's own figure, 0 (nothing exposed) to 10."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=100", str(UNITS / unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout.rsplit(":", 1)[1].split()[0])


@pytest.mark.parametrize(("unit", "most"), [("muster-node.service", 5.0), ("muster-fleet.service", 2.0)])
def test_a_service_is_exposed_no_more_than_its_job_needs(unit: str, most: float) -> None:
    need("systemd-analyze")
    assert exposure(unit) <= most


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    need("systemd-analyze")
    for path in UNITS.iterdir():
        text = path.read_text().replace("/opt/muster/bin/muster", "/bin/true").replace("User=muster", "User=daemon")
        (tmp_path / path.name).write_text(text.replace("Group=muster", "Group=daemon"))
    command = ["systemd-analyze", "verify", *(str(path) for path in sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    mine = [line for line in done.stderr.splitlines() if "muster" in line]
    assert mine == []
