"""A node with another driver than its peers is the one whose jobs fail; a half-done update leaves two on one node."""

import re
from collections.abc import Iterator

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.answers import Missing
from checks.host import Host, Unreadable

_VERSION = re.compile(r"\b(\d{3}\.\d+(?:\.\d+)?)\b")


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: version that the driver must have, or begin with ("570.124" or "570."); empty takes any.

    Which versions stand side by side in a cluster is the fleet daemon's to say; `muster fingerprint --diff` shows it.
    """

    interval: float = 300.0
    expected: str = ""


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`driver`: library, kernel module and configuration say the same."""
    missing = host.nvml.state()
    if missing is not None:
        yield Finding(component="driver", status=Status.SKIPPED, summary=f"{missing.text}: see gpu_count")
        return
    version = host.nvml.system("driver_version")
    if isinstance(version, Missing):
        yield Finding(
            component="driver", status=Status.UNKNOWN, kind="no_version", summary=f"driver version: {version.text}"
        )
        return
    library, cuda = host.nvml.system("library_version"), host.nvml.system("cuda_version")
    module = _module(host)
    summary = f"driver {version}" + ("" if isinstance(cuda, Missing) else f", CUDA up to {cuda}")
    if module and module != version:
        yield _trouble("mismatch", f"NVML says {version}, the kernel module is {module}", "drain and reboot the node")
    elif not isinstance(library, Missing) and not library.endswith(version):
        yield _trouble(
            "library", f"driver {version}, but libnvidia-ml is {library}", "reinstall the driver's libraries"
        )
    elif not version.startswith(config.expected):
        yield _trouble("expected", f"driver {version}, want {config.expected}", "bring the node to the wanted driver")
    else:
        yield Finding(component="driver", status=Status.OK, summary=summary)


def _module(host: Host) -> str:
    """The version of the kernel module that is loaded, "" where the kernel does not say."""
    try:
        first = host.read(host.proc / "driver/nvidia/version").splitlines()[0]
    except (Unreadable, IndexError):
        return ""
    found = _VERSION.search(first)
    return found[1] if found else ""


def _trouble(kind: str, summary: str, advice: str) -> Finding:
    return Finding(
        component="driver", status=Status.WARN, cause="gpu.driver", kind=kind, summary=summary, advice=advice
    )


CHECK = Check(name="driver_version", run=run, config=Config)
