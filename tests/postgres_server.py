"""A PostgreSQL server of the tests' own, on a socket in its directory: Debian's binaries, no cluster of the machine."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


class PostgresServer:
    """One server with a database `muster`. As root it runs as the user postgres, since it refuses to run as root.

    It lives outside of pytest's directories: pytest makes those unreadable for other users whenever a session starts.
    """

    def __init__(self) -> None:
        self.top = top = Path(tempfile.mkdtemp(prefix="muster-pg-"))
        (self._bin,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
        self._as = []
        if os.geteuid() == 0:
            self._as = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
            subprocess.run(["chown", "postgres", str(top)], check=True)
        self._call("initdb", "-D", f"{top}/data", "-A", "trust", "-U", "muster", "--no-sync")
        self.process = self._start()
        self._call("createdb", "-h", str(top), "-U", "muster", "muster")

    @property
    def url(self) -> str:
        """SQLAlchemy's address of the database."""
        return f"postgresql+psycopg://muster@/muster?host={self.top}"

    def kill(self) -> None:
        """The server is gone at once, as in a power cut."""
        pid = (self.top / "data/postmaster.pid").read_text().split()[0]
        subprocess.run(["kill", "-9", pid], check=True)
        self.process.wait(timeout=10)

    def restart(self) -> None:
        """The server comes back on the same data."""
        (self.top / "data/postmaster.pid").unlink(missing_ok=True)
        self.process = self._start()

    def stop(self) -> None:
        """A fast shutdown."""
        subprocess.run(
            [*self._as, str(self._bin / "pg_ctl"), "stop", "-D", f"{self.top}/data", "-m", "immediate"],
            capture_output=True,
            check=False,
            timeout=30,
        )
        self.process.wait(timeout=20)
        shutil.rmtree(self.top)

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [*self._as, str(self._bin / "postgres"), "-D", f"{self.top}/data", "-k", str(self.top), "-h", ""]
        with (self.top / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.top)
        ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self.top)]
        for _ in range(200):
            if subprocess.run(ready, check=False).returncode == 0:
                return process
            time.sleep(0.05)
        raise AssertionError((self.top / "log").read_text()[-2000:])

    def _call(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=self.top)
        assert done.returncode == 0, done.stdout + done.stderr
