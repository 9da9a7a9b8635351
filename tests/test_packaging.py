"""What pip installs: four packages of ours, their data, and names that no other distribution has."""

import importlib
import os
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("checks", "classifiers", "daemons", "trainer")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def test_wheel_holds_our_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.startswith("muster-")} == set(PACKAGES)


def test_wheel_holds_every_file_that_git_tracks_in_the_packages(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    assert sorted(set(tracked) - set(wheel.namelist())) == []
    assert sorted(n for n in wheel.namelist() if n.split("/")[0] in PACKAGES and n not in tracked) == []


def test_wheel_brings_the_launcher_and_the_status_page(wheel: zipfile.ZipFile) -> None:
    data = {name.split(".data/")[1] for name in wheel.namelist() if ".data/" in name}
    assert {"scripts/muster", "data/share/muster/web/index.html"} <= data


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_installs_our_import_name(name: str) -> None:
    assert set(packages_distributions().get(name, [])) <= {"muster"}
    assert name not in sys.stdlib_module_names


@pytest.mark.skipif("MUSTER_WHEEL" not in os.environ, reason="only where the suite is installed as a wheel (CI)")
@pytest.mark.parametrize("name", PACKAGES)
def test_the_suite_under_test_is_the_installed_wheel(name: str) -> None:
    assert "site-packages" in str(importlib.import_module(name).__file__)


def test_installing_without_extras_needs_no_torch(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    needs = [x for x in wheel.read(metadata).decode().splitlines() if x.startswith("Requires-Dist:")]
    assert [line for line in needs if "torch" in line and "extra ==" not in line] == []
