"""A daemon that does next to nothing, as a process: `python small_daemon.py FILE`; FILE's text is its configuration."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from checks.clock import SystemClock
from daemons.errors import ConfigError
from daemons.lifecycle import Daemon, Due

log = logging.getLogger("small")


class SmallDaemon(Daemon):
    def __init__(self, path: Path) -> None:
        super().__init__("small", SystemClock())
        self._path = path
        self._config = path.read_text()

    def begin(self) -> None:
        self.schedule.put("beat", 0.05, self.clock.monotonic())

    def cycle(self, due: Sequence[Due]) -> str:
        if self._config == "broken":
            self._path.with_name("raised").touch()
            raise RuntimeError("a bug")
        if self._config == "hang":
            time.sleep(3600)
        return f"beat with {self._config}"

    def reload(self) -> str:
        text = self._path.read_text()
        if text == "wrong":
            raise ConfigError(f"{self._path.name}: beat: 'wrong' is wrong: expected a word")
        self._config = text
        return f"now {text}"

    def endings(self) -> Sequence[tuple[str, Callable[[], None]]]:
        return [("close the first", self._fail), ("close the second", lambda: log.info("second closed"))]

    def status(self) -> str:
        return f"at {self._config}"

    def _fail(self) -> None:
        raise OSError("gone already")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(SmallDaemon(Path(sys.argv[1])).run())
