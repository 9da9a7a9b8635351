"""Which scheduler runs the jobs here."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from checks.host import run_command
from daemons.engines.base import Engine
from daemons.engines.local import Local
from daemons.engines.slurm import Slurm
from daemons.section import Section

_SLURM_CONF = Path("/etc/slurm/slurm.conf")


class EngineConfig(Section, frozen=True, kw_only=True):
    """[engine] kind: "auto" takes Slurm where its tools and a slurm.conf are, else this machine alone.

    slurm_conf: for a slurm.conf in another place than /etc/slurm (or SLURM_CONF).
    """

    kind: Literal["auto", "local", "slurm"] = "auto"
    slurm_conf: str = ""


def engine(config: EngineConfig, state: Path, node: str = "", environment: Mapping[str, str] = os.environ) -> Engine:
    """The engine of this configuration. state: a directory of the local engine's. Raises EngineError."""
    if kind(config, environment) == "local":
        return Local(state / "jobs", node=node)
    added = {"SLURM_CONF": config.slurm_conf} if config.slurm_conf else {}
    return Slurm(lambda command, deadline: run_command(command, deadline, {**added}))


def kind(config: EngineConfig, environment: Mapping[str, str] = os.environ) -> str:
    """ "local" or "slurm"."""
    if config.kind != "auto":
        return config.kind
    configured = config.slurm_conf or environment.get("SLURM_CONF") or (_SLURM_CONF.exists() and str(_SLURM_CONF))
    return "slurm" if configured and shutil.which("scontrol") else "local"
