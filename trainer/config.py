"""What a run is told: command line, presets and the checks that need no torch."""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trainer.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a Llama-style decoder. Sizes are in elements; `vocab` is a multiple of 64 for aligned kernels."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    rope_theta: float = 10_000.0
    tied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A model with a batch that suits it. `batch` is sequences a step over all ranks."""

    model: ModelConfig
    sequence: int
    batch: int
    rate: float


# 1m, 10m and 125m read bytes (256 and one end-of-file mark, rounded up to 320). 1b and 8b have the shapes of Meta's
# Llama-3.2-1B and Llama-3.1-8B (config.json of the published models), for a tokenizer of 128,256 words.
PRESETS = {
    "1m": Preset(
        model=ModelConfig(dim=128, layers=5, heads=4, kv_heads=2, ffn=384, vocab=320), sequence=64, batch=8, rate=2e-3
    ),
    "10m": Preset(
        model=ModelConfig(dim=320, layers=8, heads=5, kv_heads=5, ffn=896, vocab=320), sequence=256, batch=16, rate=1e-3
    ),
    "125m": Preset(
        model=ModelConfig(dim=768, layers=18, heads=12, kv_heads=4, ffn=2304, vocab=320),
        sequence=1024,
        batch=64,
        rate=6e-4,
    ),
    "1b": Preset(
        model=ModelConfig(
            dim=2048, layers=16, heads=32, kv_heads=8, ffn=8192, vocab=128_256, rope_theta=500_000.0, tied=True
        ),
        sequence=4096,
        batch=64,
        rate=3e-4,
    ),
    "8b": Preset(
        model=ModelConfig(dim=4096, layers=32, heads=32, kv_heads=8, ffn=14_336, vocab=128_256, rope_theta=500_000.0),
        sequence=8192,
        batch=128,
        rate=3e-4,
    ),
}

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """How often to save a checkpoint: by steps, by seconds, or (both 0) by what failures and saves cost."""

    steps: int = 0
    seconds: float = 0.0

    @property
    def auto(self) -> bool:
        return not self.steps and not self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One run. Times are seconds, sizes are sequences or tokens as named; see `python -m trainer --help`."""

    preset: str
    steps: int
    model: ModelConfig
    sequence: int
    batch: int
    micro_batch: int
    rate: float
    warmup_steps: int
    decay_steps: int
    weight_decay: float
    clip: float
    seed: int
    data: str
    pattern: str
    tokenizer: Path | None
    workers: int
    bad_files: str
    checkpoint_dir: Path | None
    checkpoint_every: Every
    checkpoint_keep: int
    checkpoint_keep_every: int
    checkpoint_sync: bool
    checkpoint_failures: int
    failures_per_node_day: float
    log: Path | None
    log_every: int
    fingerprint: Path | None
    deterministic: bool
    precision: str
    compile: bool
    activation_checkpoint: bool
    eval_every: int
    eval_batches: int
    bad_steps: int
    spike_factor: float
    start_timeout: float
    step_timeout: float

    def digest(self) -> str:
        """Identity of what the numbers depend on: equal digests, same curve on the same machine and world size."""
        known = {
            name: value
            for name, value in asdict(self).items()
            if not name.startswith(("checkpoint", "log", "fingerprint", "step_timeout", "start_timeout", "workers"))
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


def parse_every(text: str) -> Every:
    """`500` (steps), `600s` (seconds) or `auto`."""
    if text == AUTO:
        return Every()
    number = text.removesuffix("s")
    try:
        value = float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of 500 (steps), 600s (seconds), auto") from None
    if value <= 0 or (number == text and value != int(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0, or not a whole number of steps")
    return Every(steps=int(value)) if number == text else Every(seconds=value)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Trains a Llama-style decoder with FSDP. Run it alone or under torchrun; run it again to resume.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--preset", choices=sorted(PRESETS), default="1m", help="model size and the batch that goes with it")
    add("--steps", type=_positive, default=100, help="the step to train to, counted from the very first start")
    _data_options(made.add_argument_group("data"))
    _batch_options(made.add_argument_group("batch and optimizer"))
    _checkpoint_options(made.add_argument_group("checkpoints"))
    group = made.add_argument_group("behaviour")
    add = group.add_argument
    add("--deterministic", action="store_true", help="same losses bit for bit for the same world size and machine")
    add("--seed", type=_natural, default=1)
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 on CUDA, fp32 on CPU")
    add("--compile", action="store_true", help="torch.compile each block")
    add("--activation-checkpoint", action="store_true", help="recompute each block in backward to save memory")
    add("--bad-steps", type=_positive, default=5, help="end after this many NaN/Inf or spiking steps in a row")
    add("--spike-factor", type=_seconds, default=3.0, help="a loss above this many times the recent median is a spike")
    add(
        "--start-timeout",
        type=_seconds,
        default=1800.0,
        help="seconds a collective may take until the first step is over",
    )
    add("--step-timeout", type=_seconds, default=120.0, help="seconds a collective may take from then on")
    group = made.add_argument_group("what is said")
    add = group.add_argument
    # torchrun under Python 3.11 takes a bare --log for an abbreviation of its own --log-dir and --logs-specs.
    add("--log-file", "--log", dest="log", type=Path, metavar="FILE",
        help="rank 0 appends one JSON object a step; under torchrun say --log-file")  # fmt: skip
    add("--log-every", type=_natural, default=0, help="steps between reads of the loss; 0: 1 on CPU, 10 on CUDA")
    add("--fingerprint", type=Path, help="append what this run is made of; default: in the checkpoint directory")
    return made


def _data_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--data", default="", help="directory of files, or mds:URL for a mosaicml-streaming data set; "
        "default: the sources of the Python standard library")  # fmt: skip
    add(
        "--pattern",
        default="",
        help="names of the files to read, such as *.txt; default: every file, or *.py of the library",
    )
    add("--tokenizer", type=Path, help="tokenizer.json of the tokenizers package; default: bytes")
    add("--workers", type=_natural, default=1, help="threads that read ahead; the order does not depend on it")
    add("--bad-files", choices=["skip", "error"], default="skip", help="files that are missing, empty or not text")
    add("--eval-every", type=_natural, default=0, help="steps between evaluations on held-out sequences; 0: never")
    add("--eval-batches", type=_positive, default=4, help="global batches an evaluation reads")


def _batch_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--batch", type=_natural, default=0, help="sequences a step over all ranks; 0: the preset's")
    add("--micro-batch", type=_natural, default=0, help="sequences a rank computes at once; 0: all of its share")
    add("--sequence", type=_natural, default=0, help="tokens a sequence; 0: the preset's")
    add("--rate", type=float, default=0.0, help="peak learning rate; 0: the preset's")
    add("--warmup-steps", type=_natural, default=10)
    add("--decay-steps", type=_natural, default=0, help="cosine decay to a tenth until this step; 0: none, so that "
        "a longer --steps does not change what was trained")  # fmt: skip
    add("--weight-decay", type=float, default=0.1)
    add("--clip", type=_seconds, default=1.0, help="largest norm of the gradient")


def _checkpoint_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--checkpoint-dir", type=Path, help="shared by all ranks; default: no checkpoints")
    add("--checkpoint-every", type=parse_every, default=Every(), metavar="N|Ns|auto",
        help="steps, seconds, or auto: the least loss by Young and Daly")  # fmt: skip
    add("--checkpoint-keep", type=_positive, default=3, help="newest checkpoints to keep, 2 or more")
    add("--checkpoint-keep-every", type=_natural, default=0, help="also keep every checkpoint of these steps; 0: none")
    add("--checkpoint-sync", action="store_true", help="wait for each save instead of writing beside training")
    add("--checkpoint-failures", type=_positive, default=10, help="failed saves in a row that end the run")
    # Kokolis et al., "Revisiting Reliability in Large-Scale Machine Learning Research Clusters" (2024): 6.50 failures
    # per thousand node-days on their 16,000-GPU cluster.
    add("--failures-per-node-day", type=_seconds, default=0.0065, help="what auto reckons with")


def parse(arguments: Sequence[str] | None = None) -> Config:
    """The run that the command line asks for. Raises ConfigError naming the option to change."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--"]:  # torchrun hands on the mark that ends its own options
        del words[0]
    given = vars(parser().parse_args(words))
    preset = PRESETS[given["preset"]]
    values = {name: given[name] for name in (f.name for f in fields(Config)) if name in given}
    values["model"] = preset.model
    values["sequence"] = given["sequence"] or preset.sequence
    values["batch"] = given["batch"] or preset.batch
    values["rate"] = given["rate"] or preset.rate
    config = Config(**values)
    _check(config)
    return config


def _check(config: Config) -> None:
    if config.checkpoint_keep < 2:
        raise ConfigError("--checkpoint-keep 1: keep 2 or more, or a damaged checkpoint leaves nothing to go back to")
    if config.decay_steps and config.decay_steps <= config.warmup_steps:
        raise ConfigError(f"--decay-steps {config.decay_steps}: must lie above --warmup-steps {config.warmup_steps}")
    if config.tokenizer is not None and not config.tokenizer.is_file():
        raise ConfigError(f"--tokenizer {config.tokenizer}: no such file")
    if config.rate < 0 or config.weight_decay < 0:
        raise ConfigError("--rate and --weight-decay must not be below 0")


def micro_batches(config: Config, world_size: int) -> tuple[int, int]:
    """(sequences of a micro batch, micro batches a step) of each rank. Raises ConfigError where they do not divide."""
    if config.batch % world_size:
        raise ConfigError(
            f"--batch {config.batch} does not divide by {world_size} ranks: choose a multiple, "
            "the batch of all ranks together stays the same on every world size"
        )
    share = config.batch // world_size
    size = config.micro_batch or share
    if share % size:
        raise ConfigError(f"--micro-batch {size} does not divide a rank's share of {share} sequences")
    return size, share // size
