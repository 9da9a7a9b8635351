"""`muster drain` and `muster undrain`: dry runs unless --yes, and only what is ours is undone."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemons.cli import muster
from daemons.engines.choose import EngineConfig, kind


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "m.toml"
    path.write_text(f'[node]\nname = "here"\nstate = "{tmp_path}/state"\n[engine]\nkind = "local"\n')
    return path


def call(config: Path, *words: str) -> Result:
    return CliRunner().invoke(muster, ["--config", str(config), *words], standalone_mode=False)


def test_a_drain_is_a_dry_run_unless_yes_and_can_be_undone(config: Path) -> None:
    assert call(config, "drain", "here", "--reason", "fan").output == (
        "would drain here (idle) in local, reason 'muster: fan'; --yes does it\n"
    )
    assert call(config, "undrain", "here").output == "here is open already (idle)\n"
    assert call(config, "drain", "here", "--reason", "fan", "--yes").output == "here is drained in local: muster: fan\n"
    assert call(config, "drain", "here", "--yes").output == "here is drained already: muster: fan\n"
    assert call(config, "undrain", "here").output == (
        "would open here (drained, muster: fan) in local; --yes does it\n"
    )
    assert call(config, "undrain", "here", "--yes").output == "here is idle in local\n"


def test_an_unknown_node_is_named_with_those_there_are(config: Path) -> None:
    assert str(call(config, "drain", "there").exception) == "local has no node 'there'; there are: here"


def test_what_somebody_else_drained_is_not_opened(config: Path, tmp_path: Path) -> None:
    (tmp_path / "state/jobs").mkdir(parents=True)
    (tmp_path / "state/jobs/drained").write_text("Bob")
    assert "not drained by muster" in str(call(config, "undrain", "here", "--yes").exception)
    assert (tmp_path / "state/jobs/drained").read_text() == "Bob"


def test_slurm_is_taken_only_where_it_is_configured(tmp_path: Path) -> None:
    assert kind(EngineConfig(kind="slurm"), {}) == "slurm"
    assert kind(EngineConfig(kind="local"), {"SLURM_CONF": "/x"}) == "local"
