"""One record of what a run is made of, so that two runs can be compared line by line."""

import json
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# Variables that change how a job computes or communicates. Everything else in an environment is nobody's business.
_TOLD = re.compile(
    r"^(NCCL|TORCH|PYTORCH|TORCHINDUCTOR|CUDA|CUBLAS|NVIDIA|OMP|MKL|KMP|GLOO|UCX|FI|OMPI|SLURM|MUSTER|WORLD_SIZE|LOCAL_WORLD_SIZE"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|PYTHON[A-Z]+|ATEN_CPU_CAPABILITY|MASTER_PORT|GROUP_WORLD_SIZE)(_|$)"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|JWT|PRIVATE", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(\w+://)[^/\s@]+@")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables worth comparing, secrets and logins in addresses replaced by ***."""
    return {
        name: "***" if _SECRET.search(name) else _USER_IN_URL.sub(r"\1***@", value)
        for name, value in sorted(environ.items())
        if _TOLD.match(name)
    }


def git(directory: Path) -> dict[str, Any]:
    """{"commit", "dirty"} of the work tree around `directory`; both None where there is none or git cannot tell."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    status = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def node(device: torch.device) -> dict[str, Any]:
    """Who this rank's node and GPU are."""
    found: dict[str, Any] = {"host": socket.gethostname(), "machine_id": _first_line("/etc/machine-id")}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = {"name": properties.name, "uuid": str(properties.uuid), "memory": properties.total_memory}
    else:
        found["cpu"] = _cpu_model()
    return found


def software() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_commit": torch.version.git_version,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,  # type: ignore[no-untyped-call]
        "driver": _first_line("/proc/driver/nvidia/version"),
        "kernel": platform.release(),
        "image": release.get("PRETTY_NAME"),
        "container": _container(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def record(config_digest: str, config: dict[str, Any], data: str, nodes: list[dict[str, Any]], now: float) -> str:
    """The record as one JSON line."""
    return json.dumps(
        {
            "time": now,
            "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "config_hash": config_digest,
            "config": config,
            "data": data,
            "git": git(Path.cwd()),
            "software": software(),
            "nodes": nodes,
            "environment": environment(os.environ),
        },
        default=str,
    )


def append(path: Path, text: str) -> None:
    """Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{text}\n")


def _container() -> str | None:
    """The image's name as the common runtimes leave it in the environment."""
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "SLURM_CONTAINER", "PYXIS_IMAGE", "CONTAINER_IMAGE"):
        if os.environ.get(name):
            return os.environ[name]
    return "unknown image" if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() else None


def _cpu_model() -> str | None:
    for text in _lines("/proc/cpuinfo"):
        if text.startswith("model name"):
            return text.split(":", 1)[1].strip()
    return None


def _first_line(path: str) -> str | None:
    return next(iter(_lines(path)), None)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
