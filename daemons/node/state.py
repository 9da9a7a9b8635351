"""The state directory: where it is, that it can be written, and that one agent alone has it."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from daemons.errors import StateError

log = logging.getLogger("muster.node")

LEDGER_FILE = "ledger.db"
ALERTS_FILE = "alerts.db"
ADDRESS_FILE = "address"
_LOCK_FILE = "lock"


def directory(configured: str, environment: Mapping[str, str] = os.environ, root: bool | None = None) -> Path:
    """`node.state`, else systemd's StateDirectory, else /var/lib/muster for root and the user's own otherwise."""
    if configured:
        return Path(configured)
    if environment.get("STATE_DIRECTORY"):
        return Path(environment["STATE_DIRECTORY"].split(":")[0])
    if os.geteuid() == 0 if root is None else root:
        return Path("/var/lib/muster")
    base = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME", "/")) / ".local/state"
    return Path(base) / "muster"


def reachable(state: Path, listen: str) -> str:
    """host:port at which the agent of this state directory answers: as it said when it started, else as configured.

    An agent that listens everywhere is reached on loopback.
    """
    with contextlib.suppress(OSError):  # none has started here yet
        listen = (state / ADDRESS_FILE).read_text().strip() or listen
    host, _, port = listen.rpartition(":")
    return f"{'127.0.0.1' if host in ('', '0.0.0.0', '[::]') else host}:{port}"


def answers_at(state: Path, address: str) -> None:
    """Say where the agent answers, for `muster run` and the command line; node.listen may leave the port open."""
    beside = state / f".{ADDRESS_FILE}"
    try:
        beside.write_text(f"{address}\n")
        beside.replace(state / ADDRESS_FILE)
    except OSError as error:  # a full disk: they fall back on node.listen
        log.warning("%s: %s", state / ADDRESS_FILE, error.strerror)


class StateDirectory:
    """A state directory that is ours until `close`, or until the process ends in any way.

    Raises StateError when it cannot be made or written, or another daemon has it. who, key: what it is called and
    where it is configured.
    """

    def __init__(self, path: Path, who: str = "agent", key: str = "node.state") -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"{path}: cannot be written ({error.strerror}): set {key} to a directory that can"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._lock, 20).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise StateError(
                f"{path}: another {who} uses it (pid {holder or 'unknown'}): stop that one, or set {key} to"
                " another directory"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let the next agent have it."""
        os.close(self._lock)
