"""The order of the data depends on the seed alone, and every bad file is named."""

import sys
from pathlib import Path

import numpy as np
import pytest
from needs import need

need("torch")

from trainer.data import (  # noqa: E402 (after the check for torch)
    END,
    MISSING,
    ByteSource,
    Loader,
    Manifest,
    Order,
    permute,
    scan,
    standard_library,
)
from trainer.errors import ConfigError, DataMissingError, DataUnreadableError  # noqa: E402


def write(directory: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def source(directory: Path, length: int = 4, *, strict: bool = True) -> ByteSource:
    return ByteSource(scan(str(directory), "*", strict=strict), length, strict=strict)


def test_files_are_one_stream_with_a_mark_after_each(tmp_path: Path) -> None:
    made = source(write(tmp_path, a=b"abc", b=b"defgh", c=b"i"))
    a, i = ord("a"), ord("i")
    stream = [a, a + 1, a + 2, END, a + 3, a + 4, a + 5, a + 6, a + 7, END, i, END]
    assert made.sequences == 2
    assert made.read(0).tolist() == stream[0:5]
    assert made.read(1).tolist() == stream[4:9]


def test_a_sequence_may_span_many_files(tmp_path: Path) -> None:
    made = source(write(tmp_path, a=b"a", b=b"b", c=b"c", d=b"d"), length=6)
    assert made.read(0).tolist() == [97, END, 98, END, 99, END, 100]


def test_the_manifest_is_in_path_order_and_leaves_out_what_is_not_text(tmp_path: Path) -> None:
    write(tmp_path, b=b"1", a=b"22", **{".hidden": b"3"})
    for name in ("__pycache__", "site-packages", "lib"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, x=b"4")
    manifest = scan(str(tmp_path), "*", strict=True)
    assert manifest.files == (("a", 2), ("b", 1), ("lib/x", 1))
    assert manifest.identity == scan(str(tmp_path), "*", strict=True).identity
    write(tmp_path, a=b"333")
    assert manifest.identity != scan(str(tmp_path), "*", strict=True).identity


def test_bad_files_are_skipped_and_counted_or_raise_with_their_path(tmp_path: Path) -> None:
    write(tmp_path, good=b"text", empty=b"")
    manifest = scan(str(tmp_path), "*", strict=False)
    assert (manifest.files, manifest.skipped) == ((("good", 4),), (("empty", "empty"),))
    with pytest.raises(DataUnreadableError) as unreadable:
        scan(str(tmp_path), "*", strict=True)
    assert str(unreadable.value) == f"{tmp_path}/empty: empty (cause data.loader)"
    (tmp_path / "empty").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert scan(str(tmp_path), "*", strict=False).skipped == (("link", "missing"),)
    with pytest.raises(DataMissingError) as missing:
        scan(str(tmp_path), "*", strict=True)
    assert str(missing.value) == f"{tmp_path}/link: missing (cause data.missing)"


def test_no_directory_and_no_file_left_are_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="no such directory"):
        scan(str(tmp_path / "nowhere"), "*", strict=False)
    with pytest.raises(DataMissingError, match=r"no usable file matches \*\.txt \(0 skipped\)"):
        scan(str(write(tmp_path, a=b"x")), "*.txt", strict=False)
    with pytest.raises(DataMissingError, match="2 tokens in all, fewer than one sequence of 4"):
        source(tmp_path)


def test_a_file_that_goes_or_shrinks_while_training_is_named(tmp_path: Path) -> None:
    made = source(write(tmp_path, a=b"abcdefgh"))
    write(tmp_path, a=b"abc")
    with pytest.raises(DataUnreadableError) as shrunk:
        made.read(0)
    assert str(shrunk.value) == f"{tmp_path}/a: shorter than when it was listed (cause data.loader)"
    (tmp_path / "a").unlink()
    with pytest.raises(DataMissingError) as gone:
        made.read(0)
    assert str(gone.value) == f"{tmp_path}/a: gone since it was listed (cause data.missing)"


def test_skipped_reading_leaves_tokens_that_the_loss_leaves_out(tmp_path: Path) -> None:
    made = source(write(tmp_path, a=b"ab", b=b"cde"), strict=False)
    (tmp_path / "a").unlink()
    assert made.read(0).tolist() == [MISSING, MISSING, END, 99, 100]
    assert list(made.unreadable) == ["a"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_a_pass_over_the_data_is_a_permutation(size: int) -> None:
    assert sorted(permute(index, size, "k") for index in range(size)) == list(range(size))


def test_passes_differ_and_the_seed_decides() -> None:
    order = Order(50, seed=1)
    first = [order.sample(n) for n in range(50)]
    second = [order.sample(n) for n in range(50, 100)]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(range(50))
    assert [Order(50, seed=1).sample(n) for n in range(50)] == first
    assert [Order(50, seed=2).sample(n) for n in range(50)] != first


def test_held_out_sequences_are_never_trained_on() -> None:
    order = Order(40, seed=3, held_out=8)
    trained = {order.sample(n) for n in range(200)}
    held = {order.held_out_sample(n) for n in range(8)}
    assert (len(trained), len(held), trained & held) == (32, 8, set())
    with pytest.raises(ConfigError, match="leaves none to train on"):
        Order(8, seed=1, held_out=8)


def samples(made: ByteSource, world: int, workers: int, taken: int, steps: int) -> list[list[int]]:
    """Each step's global batch, put together from what every rank is handed."""
    order = Order(made.sequences, seed=1)
    loaders = [Loader(made, order, 8, rank, world, workers, taken=taken) for rank in range(world)]
    steps_seen = [np.concatenate([loader.next() for loader in loaders]).ravel().tolist() for _ in range(steps)]
    for loader in loaders:
        loader.close()
    return steps_seen


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("workers", [0, 1, 5])
def test_order_and_position_are_independent_of_ranks_and_workers(tmp_path: Path, world: int, workers: int) -> None:
    made = source(write(tmp_path, a=bytes(range(256)), b=bytes(reversed(range(256)))))
    straight = samples(made, world=1, workers=0, taken=0, steps=30)
    assert samples(made, world, workers, taken=0, steps=12) == straight[:12]
    assert samples(made, world, workers, taken=12 * 8, steps=18) == straight[12:]


def test_an_error_of_a_worker_reaches_the_step_that_needs_the_data(tmp_path: Path) -> None:
    made = source(write(tmp_path, a=bytes(100)))
    loader = Loader(made, Order(made.sequences, seed=1), 2, 0, 1, workers=2)
    loader.next()
    (tmp_path / "a").unlink()
    with pytest.raises(DataMissingError):
        for _ in range(10):
            loader.next()
    loader.close()


def test_the_default_text_is_the_standard_library() -> None:
    manifest: Manifest = scan(standard_library(), "*.py", strict=False)
    assert dict(manifest.files)["json/decoder.py"] > 1000
    assert f"python{sys.version_info.major}.{sys.version_info.minor}" in manifest.root
