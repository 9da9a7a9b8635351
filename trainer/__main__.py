"""`python -m trainer`, alone or under torchrun."""

import os
import sys
import traceback

from trainer.beat import muster_beat
from trainer.config import parse
from trainer.errors import ConfigError, TrainerError


def main() -> int:
    """Exit code of the run; see trainer.train."""
    try:
        config = parse()
    except ConfigError as error:
        sys.stderr.write(f"trainer: {error}\n")
        return 2
    # Before torch is imported, which takes seconds on a cold file system: supervision sees the process from the start.
    muster_beat.beat(phase="start")
    from trainer.train import main as train

    try:
        # record() types its function as one that may return nothing; it does where SystemExit(0) ends it.
        return train(config) or 0
    except TrainerError as error:
        sys.stderr.write(f"trainer: {type(error).__name__}: {error}\n")
    except BaseException:  # noqa: BLE001 (the last stop: said, and the process ends)
        traceback.print_exc()
    # Not through the interpreter's shutdown: it would wait for a save that waits for a rank that is gone.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
