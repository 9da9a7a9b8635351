"""Sources that need more than the standard library: a tokenizer, or data sets in an object store."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data import Manifest, Tokens
from trainer.errors import ConfigError, DataMissingError, DataUnreadableError, MissingExtraError


def token_file(
    manifest: Manifest, tokenizer: Path, cache: Path, *, strict: bool, say: Callable[[str], None] = lambda text: None
) -> tuple[Path, str]:
    """(file of uint32 tokens, identity) of the text under `tokenizer`; made here unless it is there already.

    Call it in one process a node; the others open what it made. Files that are not UTF-8 are skipped or, if
    `strict`, raise DataUnreadableError. Raises MissingExtraError without the tokenizers package.
    """
    digest = hashlib.sha256(tokenizer.read_bytes() + manifest.identity.encode()).hexdigest()[:32]
    path = cache / f"tokens-{digest}.u32"
    if not path.exists():
        encoder = _tokenizer(tokenizer)
        cache.mkdir(parents=True, exist_ok=True)
        part = cache / f"{path.name}.{os.getpid()}.part"
        with part.open("wb") as file:
            for name, _ in manifest.files:
                try:
                    ids = _encode(encoder, Path(manifest.root, name))
                except (DataMissingError, DataUnreadableError) as error:
                    if strict:
                        raise
                    say(f"data: skipped {error}")
                    continue
                file.write(np.asarray(ids, dtype=np.uint32).tobytes())
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    return path, digest


def token_cache(checkpoint_dir: Path | None) -> Path:
    """Where token files are kept: the user's cache, or beside the checkpoints where there is no home."""
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME")
    if root:
        return Path(root, "muster-tokens") if os.environ.get("XDG_CACHE_HOME") else Path(root, ".cache/muster-tokens")
    return (checkpoint_dir or Path.cwd()) / "tokens"


def _tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise MissingExtraError("--tokenizer needs the tokenizers package: pip install 'muster[tokenizer]'") from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (the package raises bare Exception)
        raise ConfigError(f"--tokenizer {path}: {error}") from None


def vocabulary(tokenizer: Path) -> int:
    """Number of words of a tokenizer file."""
    return int(_tokenizer(tokenizer).get_vocab_size())


def _encode(encoder: Any, path: Path) -> list[int]:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise DataMissingError(f"{path}: gone since it was listed") from None
    except OSError as error:
        raise DataUnreadableError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataUnreadableError(f"{path}: not UTF-8 at byte {error.start}") from None
    ids: list[int] = encoder.encode(text).ids
    return ids


class StreamingSource:
    """A mosaicml-streaming data set with a field `tokens` (int64 bytes or array), as llm-foundry's converter writes.

    Its samples are asked for by number, so that order and resumption are ours; its own cache and its one download a
    node stay at work underneath. Raises MissingExtraError without the package.
    """

    def __init__(self, url: str, length: int, cache: Path) -> None:
        try:
            from streaming import StreamingDataset  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            raise MissingExtraError(
                f"--data mds:{url} needs the mosaicml-streaming package: pip install 'muster[streaming]'"
            ) from None
        except RuntimeError as error:
            # It imports torchvision, whose build must be of the very torch that is installed.
            raise MissingExtraError(
                f"--data mds:{url}: mosaicml-streaming cannot be imported: {error}; "
                "install the torchvision that belongs to this torch"
            ) from error
        local = Path(url).is_dir()
        try:
            self._data = StreamingDataset(
                remote=None if local else url,
                local=url if local else str(cache / hashlib.sha256(url.encode()).hexdigest()[:16]),
                shuffle=False,
                batch_size=1,
            )
        except (FileNotFoundError, RuntimeError, ValueError) as error:
            raise DataMissingError(f"mds:{url}: {error}") from error
        self._url, self._length = url, length
        self.unreadable: dict[str, str] = {}

    @property
    def sequences(self) -> int:
        return int(self._data.size)

    @property
    def identity(self) -> str:
        return f"mds:{self._url}:{self.sequences}:{self._length}"

    def read(self, index: int) -> Tokens:
        sample = self._data[index]
        if "tokens" not in sample:
            raise DataUnreadableError(
                f"mds:{self._url} sample {index}: no field tokens, only {', '.join(sorted(sample))}"
            )
        raw = sample["tokens"]
        tokens = np.frombuffer(raw, dtype=np.int64) if isinstance(raw, bytes) else np.asarray(raw, dtype=np.int64)
        if len(tokens) < self._length + 1:
            raise DataUnreadableError(
                f"mds:{self._url} sample {index}: {len(tokens)} tokens, fewer than --sequence {self._length} and one"
            )
        return tokens[: self._length + 1]
