"""What can end a training run, each with the cause id that logs, alerts and restarts speak of.

The cause stands in the message, so that it reaches a person, a log rule and torchelastic's error file alike.
"""

import errno


class TrainerError(Exception):
    """The run cannot go on. `cause` is an id of the suite's vocabulary of root causes."""

    cause = "unknown"

    def __str__(self) -> str:
        return f"{super().__str__()} (cause {self.cause})"


class ConfigError(TrainerError):
    """An argument is wrong, or arguments do not fit each other."""

    cause = "program.config"


class MissingExtraError(TrainerError):
    """An optional package is not installed; the message says how to get it."""

    cause = "program.environment"


class DataMissingError(TrainerError):
    """A file or directory of the training data does not exist (any more)."""

    cause = "data.missing"


class DataUnreadableError(TrainerError):
    """A file of the training data is there and cannot be used: empty, shorter than it was, not text, not readable."""

    cause = "data.loader"


class DataChangedError(TrainerError):
    """The data is not what the checkpoint was trained on, so its position in the data means nothing."""

    cause = "program.config"


class DataEndError(TrainerError):
    """A source that cannot be repeated has no more samples."""

    cause = "data.loader"


class CheckpointDamagedError(TrainerError):
    """Checkpoints are here and none of them is whole."""

    cause = "storage.checkpoint"


class CheckpointMismatchError(TrainerError):
    """The checkpoint is whole and belongs to another model."""

    cause = "program.config"


class CheckpointTargetError(TrainerError):
    """Checkpoints could not be written for too long: going on would only lose more work."""

    cause = "storage.filesystem"


class CheckpointDiskFullError(CheckpointTargetError):
    """As above, because the disk or the quota is full."""

    cause = "storage.disk_full"


class CheckpointBusyError(TrainerError):
    """Another run is writing into the checkpoint directory."""

    cause = "program.config"


class NonFiniteError(TrainerError):
    """Loss or gradients were NaN or infinite for too many steps in a row."""

    cause = "program.numerics"


class LossSpikeError(TrainerError):
    """The loss stayed far above its recent level for too many steps in a row."""

    cause = "program.numerics"


class OutOfMemoryError(TrainerError):
    """The GPU has no room for what the step needs."""

    cause = "gpu.out_of_memory"


class CollectiveTimeoutError(TrainerError):
    """A collective did not finish in time: some rank did not take part. The one that raises is not the one to blame."""

    cause = "net.collective_timeout"


class PeerLostError(TrainerError):
    """Another rank closed its connection, so it ended first: its own message is the one that matters."""

    cause = "net.peer_lost"


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# Fragments of the messages of gloo and NCCL, as torch 2.13 words them.
_TIMEOUT_WORDS = ("Timed out waiting", "timed out", "timeout", "Timeout")
_PEER_WORDS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")


def disk_full(error: BaseException) -> bool:
    """Whether the error, or what it was raised from, says that a disk or quota is full."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    text = str(error)
    return "No space left on device" in text or "Disk quota exceeded" in text or "File too large" in text


def typed(error: BaseException) -> TrainerError | None:
    """The typed form of an error that torch or the system raised; None where the cause is not known for certain."""
    if isinstance(error, TrainerError):
        return error
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if type(error).__name__ == "OutOfMemoryError":
        return OutOfMemoryError(text)
    if isinstance(error, OSError) and error.errno in FULL:
        return CheckpointDiskFullError(text)
    # torch raises DistBackendError and plain RuntimeError for these, by backend and version.
    if isinstance(error, RuntimeError) and any(word in text for word in _PEER_WORDS):
        return PeerLostError(text)
    if isinstance(error, RuntimeError) and any(word in text for word in _TIMEOUT_WORDS):
        return CollectiveTimeoutError(text)
    return None
