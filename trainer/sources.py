"""Opens the data that the command line names, with one rank looking at it for all."""

from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from trainer.config import Config
from trainer.data import ByteSource, Manifest, Source, TokenSource, scan, standard_library
from trainer.distributed import World, ask_one
from trainer.errors import ConfigError


def open_source(config: Config, world: World, say: Callable[[str], None]) -> Source:
    """The source of `--data`. Every rank calls it at the same point; `say` is heard from rank 0 and, for what a node
    alone meets, from the first rank of the node. Raises the TrainerError that names option or path."""
    if config.data.startswith("mds:"):
        from trainer.tokens import StreamingSource, token_cache

        return StreamingSource(config.data.removeprefix("mds:"), config.sequence, token_cache(config.checkpoint_dir))
    root = config.data or standard_library()
    pattern = config.pattern or ("*" if config.data else "*.py")
    strict = config.bad_files == "error"
    # One rank lists the directory, for all: a thousand ranks listing one bring a file server down.
    manifest = ask_one(world, lambda: scan(root, pattern, strict=strict))
    if manifest.skipped and world.rank == 0:
        path, why = manifest.skipped[0]
        say(f"data: {len(manifest.skipped)} files skipped, the first {Path(root, path)}: {why}")
    if config.tokenizer is None:
        return ByteSource(manifest, config.sequence, strict=strict)
    return _tokenized(config, world, manifest, config.tokenizer, say)


def _tokenized(
    config: Config, world: World, manifest: Manifest, tokenizer: Path, say: Callable[[str], None]
) -> TokenSource:
    from trainer.tokens import token_cache, token_file, vocabulary

    words = vocabulary(tokenizer)
    if words > config.model.vocab:
        raise ConfigError(
            f"--tokenizer {tokenizer}: {words} words, --preset {config.preset} has room for {config.model.vocab}"
        )
    cache, strict = token_cache(config.checkpoint_dir), config.bad_files == "error"
    if world.local_rank == 0:
        token_file(manifest, tokenizer, cache, strict=strict, say=say)
    dist.barrier(group=world.control)
    path, identity = token_file(manifest, tokenizer, cache, strict=strict)
    return TokenSource(path, config.sequence, identity)
