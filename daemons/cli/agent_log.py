"""What a daemon says: one line a sentence on stderr, with the journal's priorities where the journal reads it."""

import logging
import os
import sys
from collections.abc import Mapping

_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class _Journal(logging.Formatter):
    """`<6>text` (sd-daemon(3)); the journal has the time and the unit already."""

    def format(self, record: logging.LogRecord) -> str:
        # Every line of a traceback needs its own, or the journal takes the rest for information.
        lines = super().format(record).splitlines()
        return "\n".join(f"<{_PRIORITY.get(record.levelname, 6)}>{line}" for line in lines)


def log_to_stderr(environment: Mapping[str, str] = os.environ) -> None:
    """Set the process's logging up."""
    handler = logging.StreamHandler(sys.stderr)
    if environment.get("JOURNAL_STREAM"):
        handler.setFormatter(_Journal("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for talkative in ("httpx", "httpcore", "uvicorn", "slack_sdk"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
