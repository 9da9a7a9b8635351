"""Text by a tokenizer and samples of a streaming data set: real packages, and one line where they are missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

need("torch")

from trainer.data import TokenSource, scan  # noqa: E402 (after the check for torch)
from trainer.errors import ConfigError, DataUnreadableError  # noqa: E402
from trainer.tokens import token_file, vocabulary  # noqa: E402

ROOT = Path(__file__).parent.parent.parent


def tokenizer(directory: Path) -> Path:
    """Words to numbers, cut at blanks: the smallest real tokenizer.json."""
    model = {"type": "WordLevel", "vocab": {"?": 0, "a": 1, "b": 2, "c": 3}, "unk_token": "?"}
    parts = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": model}
    path = directory / "tokenizer.json"
    path.write_text(json.dumps({"truncation": None, "padding": None, **parts}))
    return path


def test_text_becomes_a_file_of_tokens_once(tmp_path: Path) -> None:
    need("tokenizers")
    data = tmp_path / "data"
    data.mkdir()
    (data / "1.txt").write_text("a b c a")
    (data / "2.txt").write_text("b b z")
    manifest = scan(str(data), "*", strict=True)
    words = tokenizer(tmp_path)
    assert vocabulary(words) == 4
    path, identity = token_file(manifest, words, tmp_path / "cache", strict=True)
    source = TokenSource(path, 3, identity)
    assert [source.read(index).tolist() for index in range(source.sequences)] == [[1, 2, 3, 1], [1, 2, 2, 0]]
    made = path.stat().st_mtime_ns
    assert token_file(manifest, words, tmp_path / "cache", strict=True) == (path, identity)
    assert path.stat().st_mtime_ns == made
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [path.name], "nothing half made is left"


def test_what_is_not_utf8_is_skipped_or_named(tmp_path: Path) -> None:
    need("tokenizers")
    data = tmp_path / "data"
    data.mkdir()
    (data / "1.txt").write_bytes(b"a b\xff")
    (data / "2.txt").write_text("c c c")
    manifest = scan(str(data), "*", strict=True)
    said: list[str] = []
    path, identity = token_file(manifest, tokenizer(tmp_path), tmp_path / "cache", strict=False, say=said.append)
    assert said == [f"data: skipped {data}/1.txt: not UTF-8 at byte 3 (cause data.loader)"]
    assert TokenSource(path, 2, identity).read(0).tolist() == [3, 3, 3]
    with pytest.raises(DataUnreadableError) as wrong:
        token_file(manifest, tokenizer(tmp_path), tmp_path / "other", strict=True)
    assert str(wrong.value) == f"{data}/1.txt: not UTF-8 at byte 3 (cause data.loader)"


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    need("tokenizers")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"--tokenizer {tmp_path}/t.json: "):
        vocabulary(tmp_path / "t.json")


# streaming imports torchvision for image sets, which are not used here. A torchvision of another build than torch
# cannot be imported (the CPU build of torch beside the index's default torchvision): then an empty one stands in.
STREAM = """
import sys, types, numpy as np
from importlib.machinery import ModuleSpec
try:
    import torchvision
except (ImportError, RuntimeError):
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)
    sys.modules["torchvision.datasets"].VisionDataset = object
    sys.modules["torchvision.transforms.functional"].to_tensor = None
from pathlib import Path
from streaming import MDSWriter
from trainer.errors import DataUnreadableError
from trainer.tokens import StreamingSource

where = sys.argv[1]
with MDSWriter(out=where, columns={"tokens": "ndarray:int64"}, size_limit=400) as out:
    for sample in range(20):
        out.write({"tokens": np.arange(sample * 10, sample * 10 + 9)})
source = StreamingSource(where, 8, Path(where))
assert source.sequences == 20, source.sequences
assert source.read(7).tolist() == list(range(70, 79))
assert source.read(0).tolist() == list(range(0, 9)), "any sample, in any order"
try:
    StreamingSource(where, 9, Path(where)).read(3)
except DataUnreadableError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_streaming_data_set_is_read_by_sample_number(tmp_path: Path) -> None:
    """In a process of its own: the package leaves shared memory and threads behind."""
    need("streaming")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STREAM, str(tmp_path / "mds")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        f"mds:{tmp_path}/mds sample 3: 9 tokens, fewer than --sequence 9 and one (cause data.loader)"
    )


MISSING = """
import sys
sys.modules["streaming"] = sys.modules["tokenizers"] = None  # as where they are not installed
from pathlib import Path
from trainer.errors import MissingExtraError
from trainer.tokens import StreamingSource, vocabulary
for ask in (lambda: vocabulary(Path("t.json")), lambda: StreamingSource("s3://b/d", 8, Path("."))):
    try:
        ask()
    except MissingExtraError as error:
        print(error)
"""


def test_a_missing_package_is_one_line_with_the_remedy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING], capture_output=True, text=True, cwd=ROOT, timeout=100, check=False
    )
    assert done.stdout.splitlines() == [
        "--tokenizer needs the tokenizers package: pip install 'muster[tokenizer]' (cause program.environment)",
        "--data mds:s3://b/d needs the mosaicml-streaming package: pip install 'muster[streaming]' "
        "(cause program.environment)",
    ], done.stderr
