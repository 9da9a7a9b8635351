"""Where logs lie: files and trees, compressed or cut off, wrapped by containers, the journal and torchelastic."""

import gzip
import io
import json
import os
from pathlib import Path

import pytest
import zstandard

from classifiers.base import Verdict
from classifiers.engine import Engine
from classifiers.inputs import Unreadable, found, read

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


def of(engine: Engine, *paths: Path) -> Verdict:
    return read(engine, found(paths)).verdict()


def noise(lines: int) -> bytes:
    """Training lines that do not compress to nothing."""
    return b"".join(b"step %d loss 1.%d %s\n" % (i, i, os.urandom(20).hex().encode()) for i in range(lines))


def test_a_gzip_file_is_read_through(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "job.log.gz"
    path.write_bytes(gzip.compress(noise(100) + OOM.encode() + b"\n"))
    verdict = of(engine, path)
    assert verdict.evidence is not None
    assert (verdict.cause, verdict.evidence.line, verdict.notes) == ("gpu.out_of_memory", 101, [])


def test_a_zstd_file_of_several_frames_is_read_through(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "job.log.zst"
    pack = zstandard.ZstdCompressor().compress
    path.write_bytes(pack(noise(5000)) + pack(OOM.encode() + b"\n"))
    verdict = of(engine, path)
    assert verdict.evidence is not None
    assert (verdict.cause, verdict.evidence.line, verdict.notes) == ("gpu.out_of_memory", 5001, [])


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_cut_off_compressed_file_is_read_as_far_as_it_goes_and_said_so(
    engine: Engine, tmp_path: Path, suffix: str
) -> None:
    log = OOM.encode() + b"\n" + noise(20_000)
    packed = gzip.compress(log) if suffix == "gz" else zstandard.ZstdCompressor().compress(log)
    path = tmp_path / f"job.log.{suffix}"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    verdict = of(engine, path)
    assert verdict.cause == "gpu.out_of_memory"
    (note,) = verdict.notes
    assert note.startswith(f"{path}: the compressed file is cut off")


def test_a_tree_of_torchrun_gives_each_rank_its_log(engine: Engine, tmp_path: Path) -> None:
    for rank in range(12):
        place = tmp_path / "none_x1" / "attempt_0" / str(rank)
        place.mkdir(parents=True)
        text = OOM if rank == 10 else "RuntimeError: [gloo/pair.cc:5] Connection closed by peer [10.0.0.1]:7"
        (place / "stderr.log").write_text(f"{text}\n")
    verdict = of(engine, tmp_path)
    assert (verdict.cause, verdict.rank) == ("gpu.out_of_memory", 10)
    assert [(one.cause, one.ranks) for one in verdict.cascades] == [("net.peer_lost", [*range(10), 11])]


@pytest.mark.parametrize(
    ("line", "rank", "host"),
    [
        ("3: {}", 3, ""),
        ("[rank7]: {}", 7, ""),
        ("[1,12]<stderr>:{}", 12, ""),
        ("[default5]:{}", 5, ""),
        ("2026-03-02T11:12:13.123456789Z stderr F [rank2]: {}", 2, ""),
        ("Mar  5 22:41:52 farm7 train[8841]: {}", None, "farm7"),
        ("(RayTrainWorker pid=12, ip=10.1.2.3) {}", None, "10.1.2.3"),
        ("[rank: 4] {}", 4, ""),
    ],
)
def test_prefixes_of_the_field_name_rank_and_host(engine: Engine, line: str, rank: int | None, host: str) -> None:
    session = engine.session()
    session.feed("slurm-1.out", (line.format(OOM) + "\n").encode())
    verdict = session.verdict()
    assert (verdict.cause, verdict.rank, verdict.host) == ("gpu.out_of_memory", rank, host)


def test_the_journal_in_json_and_a_container_log_are_unwrapped(engine: Engine, tmp_path: Path) -> None:
    xid = "NVRM: Xid (PCI:0000:41:00): 79, pid=3312, GPU has fallen off the bus."
    journal = [
        {"__REALTIME_TIMESTAMP": "1700000000000000", "_HOSTNAME": "n7", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": xid},
        {"__REALTIME_TIMESTAMP": "1700000001000000", "_HOSTNAME": "n7", "MESSAGE": [111, 107]},
    ]
    path = tmp_path / "journal.json"
    path.write_text("".join(json.dumps(one) + "\n" for one in journal))
    verdict = of(engine, path)
    assert (verdict.cause, verdict.host) == ("gpu.lost", "n7")
    assert verdict.evidence is not None
    assert verdict.evidence.text == f"2023-11-14T22:13:20 n7 kernel: {xid}"
    path.write_text(json.dumps({"log": OOM + "\n", "stream": "stderr", "time": "2026-01-01T00:00:00Z"}) + "\n")
    assert of(engine, path).cause == "gpu.out_of_memory"


def test_an_error_file_of_torchelastic_is_its_traceback(engine: Engine, tmp_path: Path) -> None:
    stack = 'Traceback (most recent call last):\n  File "t.py", line 3, in main\n    a["x"]\nKeyError: \'x\'\n'
    place = tmp_path / "attempt_0" / "6"
    place.mkdir(parents=True)
    message = {"message": "KeyError: 'x'", "extraInfo": {"py_callstack": stack, "timestamp": "1631528493"}}
    (place / "error.json").write_text(json.dumps({"message": message}))
    verdict = of(engine, tmp_path)
    assert verdict.evidence is not None
    assert (verdict.cause, verdict.rank, verdict.evidence.text) == ("program.python", 6, "KeyError: 'x'")


def test_what_is_no_text_is_left_out_and_named(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(b"\x7fELF\0\0\0" + OOM.encode() * 10)
    verdict = of(engine, tmp_path)
    assert (verdict.cause, verdict.notes) == ("none", [f"{tmp_path}/core: skipped, it is not text"])


def test_standard_input_is_a_source(engine: Engine) -> None:
    verdict = read(engine, [], stdin=io.BytesIO(b"ok\n" + OOM.encode())).verdict()
    assert verdict.evidence is not None
    assert (verdict.cause, verdict.evidence.file, verdict.evidence.line) == ("gpu.out_of_memory", "-", 2)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"none\.log: no such file or directory"):
        found([tmp_path / "none.log"])


def test_many_files_read_side_by_side_keep_the_order_they_were_named_in(engine: Engine, tmp_path: Path) -> None:
    for rank in range(20):
        (tmp_path / f"rank_{rank}.log").write_text("x\n" * (2000 - 90 * rank) + f"KeyError: {rank}\n")
    first = [read(engine, found([tmp_path]), threads=threads).verdict() for threads in (1, 4)]
    assert [one.evidence and one.evidence.file for one in first] == [f"{tmp_path}/rank_0.log"] * 2
