"""What a person types wrong is one line that names the option."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.config import PRESETS, Every, micro_batches, parse, parse_every
from trainer.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


def test_the_contract_of_the_command_line(tmp_path: Path) -> None:
    words = ["--preset", "1m", "--data", "D", "--steps", "40", "--checkpoint-dir", str(tmp_path)]
    config = parse([*words, "--checkpoint-every", "10", "--deterministic", "--log", "L"])
    assert (config.preset, config.data, config.steps, config.deterministic) == ("1m", "D", 40, True)
    assert (config.checkpoint_dir, config.checkpoint_every, config.log) == (tmp_path, Every(steps=10), Path("L"))
    assert (config.sequence, config.batch, config.model) == (64, 8, PRESETS["1m"].model)
    assert parse(["--", "--log-file", "L"]).log == Path("L")


@pytest.mark.parametrize(
    ("text", "every"),
    [("500", Every(steps=500)), ("90s", Every(seconds=90.0)), ("0.5s", Every(seconds=0.5)), ("auto", Every())],
)
def test_checkpoint_every_takes_steps_seconds_or_auto(text: str, every: Every) -> None:
    assert parse_every(text) == every
    assert every.auto == (text == "auto")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint-every", "0"], "--checkpoint-every: '0' is not above 0, or not a whole number of steps"),
        (["--checkpoint-every", "1.5"], "--checkpoint-every: '1.5' is not above 0, or not a whole number of steps"),
        (["--checkpoint-every", "soon"], "--checkpoint-every: 'soon' is none of 500 (steps), 600s (seconds), auto"),
        (["--steps", "0"], "argument --steps: '0' is not a whole number above 0"),
        (["--preset", "2m"], "argument --preset: invalid choice: '2m'"),
        (["--clip", "nan"], "argument --clip: 'nan' is not a number above 0"),
        (["--chekpoint-dir", "x"], "unrecognized arguments: --chekpoint-dir x"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint-keep", "1"], "--checkpoint-keep 1: keep 2 or more"),
        (["--decay-steps", "5", "--warmup-steps", "5"], "--decay-steps 5: must lie above --warmup-steps 5"),
        (["--tokenizer", "/nowhere.json"], "--tokenizer /nowhere.json: no such file"),
    ],
)
def test_options_that_do_not_fit_each_other_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        parse(words)
    assert str(wrong.value).startswith(message)
    assert str(wrong.value).endswith("(cause program.config)")


def test_micro_batches_divide_the_same_global_batch() -> None:
    config = parse(["--batch", "24"])
    assert [micro_batches(config, world) for world in (1, 2, 8)] == [(24, 1), (12, 1), (3, 1)]
    assert micro_batches(parse(["--batch", "24", "--micro-batch", "4"]), 2) == (4, 3)
    with pytest.raises(ConfigError, match="--batch 24 does not divide by 5 ranks"):
        micro_batches(config, 5)
    with pytest.raises(ConfigError, match="--micro-batch 5 does not divide a rank's share of 12 sequences"):
        micro_batches(parse(["--batch", "24", "--micro-batch", "5"]), 2)


def test_the_digest_is_of_what_the_curve_depends_on() -> None:
    base = parse([]).digest()
    assert parse(["--workers", "4", "--log", "x", "--checkpoint-keep", "5"]).digest() == base
    assert parse(["--seed", "2"]).digest() != base


def test_presets_have_the_size_they_are_named_for() -> None:
    """1b and 8b count as their publisher counts them."""
    sizes = {}
    for name, preset in PRESETS.items():
        m = preset.model
        head = m.dim // m.heads
        block = 2 * m.dim * m.dim + 2 * m.dim * m.kv_heads * head + 3 * m.dim * m.ffn + 2 * m.dim
        sizes[name] = m.layers * block + m.dim + m.vocab * m.dim * (1 if m.tied else 2)
    assert sizes == {
        "1m": 1_066_368,
        "10m": 10_368_320,
        "125m": 124_382_976,
        "1b": 1_235_814_400,
        "8b": 8_030_261_248,
    }


def test_a_wrong_argument_is_said_before_torch_is_loaded() -> None:
    code = "import sys; sys.argv = ['trainer', '--checkpoint-keep', '1']\nfrom trainer.__main__ import main\n"
    check = "assert main() == 2; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("trainer: --checkpoint-keep 1: keep 2 or more")
