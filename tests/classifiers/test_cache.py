"""The cache: whole or not at all, and nobody else's."""

from pathlib import Path

import pytest

from classifiers import cache


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    cache.write("rules-x", b"data", tmp_path / "c")
    assert cache.read("rules-x", tmp_path / "c") == b"data"
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["rules-x"]


@pytest.mark.parametrize("damage", [b"", b"muster-cache-1\n", b"something else"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    cache.write("rules-x", b"data", tmp_path)
    (tmp_path / "rules-x").write_bytes(damage)
    assert cache.read("rules-x", tmp_path) is None


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    cache.write("rules-x", b"data" * 100, tmp_path)
    path = tmp_path / "rules-x"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(bytes(data))
    assert cache.read("rules-x", tmp_path) is None


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    cache.write("rules-x", b"data", tmp_path)
    (tmp_path / "rules-x").chmod(0o666)
    assert cache.read("rules-x", tmp_path) is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache.write("rules-x", b"data", tmp_path / "file" / "c")
    assert cache.read("rules-x", tmp_path / "file" / "c") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(9):
        cache.write(f"rules-{number}", b"data", tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
