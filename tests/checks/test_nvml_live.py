"""The real pynvml on a library of our own: what is asked, what has no answer, what never returns, what vanishes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml, Tree, tree_of
from needs import need
from scenarios import NODES

from checks.clock import ManualClock, SystemClock
from checks.gpu.answers import GROUPS, SYSTEM, Missing, Reason, decode
from checks.gpu.nvml import LiveSource, Nvml, RecordedSource
from checks.prober import Prober, ProbeTimeout

need("cc")

BASES = ["h100x8_healthy", "h200x8_healthy", "a100x8_healthy", "gb200x4_healthy", "workstation_rtx4090_healthy"]


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path, tree_of(NODES / "h100x8_healthy"))


@pytest.fixture
def prober(fake: FakeNvml) -> Iterator[Prober]:
    opened = Prober(environment=fake.environment)
    yield opened
    opened.close()


def changed(**gpu3: Any) -> Tree:
    tree = tree_of(NODES / "h100x8_healthy")
    tree["gpus"][3] |= gpu3
    return tree


@pytest.mark.parametrize("name", BASES)
def test_every_question_gets_the_answer_of_the_recording(
    name: str, fake: FakeNvml, prober: Prober, tmp_path: Path
) -> None:
    tree = tree_of(NODES / name)
    fake.answer(tree)
    (tmp_path / "nvml.json").write_text(json.dumps(tree))
    live, recorded = LiveSource(prober), RecordedSource(tmp_path / "nvml.json")
    assert {question: live.driver()[question] for question in SYSTEM} == dict(recorded.driver())
    for group, questions in GROUPS.items():
        for index in range(len(tree["gpus"])):
            asked, expected = live.gpu(index, group), recorded.gpu(index, group)
            for question in questions:
                here, there = decode(asked[question]), decode(expected[question])
                if isinstance(there, Missing):
                    assert isinstance(here, Missing), question
                    assert here.missing is there.missing, question
                else:
                    assert here == there, question


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("not_supported", Reason.NOT_SUPPORTED),
        ("no_permission", Reason.NO_PERMISSION),
        ("lost", Reason.LOST),
        ("not_found", Reason.NOT_FOUND),
        ("sentinel", Reason.SENTINEL),
        ("error", Reason.ERROR),
    ],
)
def test_why_there_is_no_answer_is_told_apart(reason: str, expected: Reason, fake: FakeNvml, prober: Prober) -> None:
    fake.answer(changed(temperature={"missing": reason}))
    answer = decode(LiveSource(prober).gpu(3, "load")["temperature"])
    assert isinstance(answer, Missing)
    assert answer.missing is expected


def test_a_function_that_the_library_lacks_is_not_supported(fake: FakeNvml, prober: Prober) -> None:
    fake.answer(changed(recovery_action="!absent"))
    answer = decode(LiveSource(prober).gpu(3, "health")["recovery_action"])
    assert answer == Missing(Reason.NOT_SUPPORTED, "Function Not Found")


@pytest.mark.parametrize(
    ("driver", "reason", "text"),
    [
        ("no_driver", Reason.NO_DRIVER, "Driver Not Loaded"),
        ("no_permission", Reason.NO_PERMISSION, "Insufficient Permissions"),
        ("mismatch", Reason.MISMATCH, "RM has detected an NVML/RM version mismatch."),
        ("error", Reason.ERROR, "Unknown Error"),
    ],
)
def test_a_driver_that_does_not_begin_says_why(
    driver: str, reason: Reason, text: str, fake: FakeNvml, prober: Prober
) -> None:
    fake.answer({"system": {"driver": {"missing": driver}}, "gpus": []})
    assert Nvml(LiveSource(prober), ManualClock(), list).state() == Missing(reason, text)


def test_a_driver_that_comes_back_is_seen_without_a_new_child(fake: FakeNvml, prober: Prober) -> None:
    live = LiveSource(prober)
    fake.answer({"system": {"driver": {"missing": "no_driver"}}, "gpus": []})
    assert "driver" in live.driver()
    pids = prober.pids()
    fake.answer(tree_of(NODES / "h100x8_healthy"))
    assert live.driver()["gpus"] == 8
    assert prober.pids() == pids


def test_a_machine_without_the_library_says_so(tmp_path: Path) -> None:
    prober = Prober(environment={"LD_LIBRARY_PATH": str(tmp_path)})
    try:
        answer = Nvml(LiveSource(prober), ManualClock(), list).state()
    finally:
        prober.close()
    assert answer == Missing(Reason.NO_LIBRARY, "NVML Shared Library Not Found")


def test_a_gpu_that_vanishes_between_two_calls_is_lost_and_keeps_its_number(fake: FakeNvml, prober: Prober) -> None:
    clock = ManualClock()
    nvml = Nvml(LiveSource(prober), clock, list)
    before = {gpu.pci: gpu.number for gpu in nvml.gpus()}
    tree = tree_of(NODES / "h100x8_healthy")
    tree["gpus"][3] = {"missing": "lost"}
    fake.answer(tree)
    clock.advance(60)
    lost = nvml.gpus()[3]
    assert (lost.number, lost.pci, lost.missing) == (3, "0000:5d:00.0", Missing(Reason.LOST, "GPU is lost"))
    del tree["gpus"][3]
    fake.answer(tree)
    clock.advance(60)
    assert {gpu.pci: gpu.number for gpu in nvml.gpus()} == {p: n for p, n in before.items() if n != 3}


def test_a_call_that_never_returns_takes_its_deadline_once_and_nothing_from_the_other_gpus(
    fake: FakeNvml, prober: Prober
) -> None:
    clock = ManualClock()
    fake.answer(changed(temperature={"missing": "hung"}))
    nvml = Nvml(LiveSource(prober, gpu_deadline=1.0), clock, list)
    gpus = nvml.gpus()
    assert gpus[3].ask("temperature") == Missing(Reason.HUNG, "nvml:gpu3 gave no answer within 1 s")
    assert gpus[3].ask("recovery_action") == Missing(Reason.HUNG, "nvml:gpu3 gave no answer within 1 s")
    assert gpus[4].ask("temperature") == 32
    assert list(nvml.silent()) == ["gpu/3"]
    assert len(prober.pids()) == 1


def test_no_process_piles_up_over_an_hour_of_a_hanging_call(fake: FakeNvml, prober: Prober) -> None:
    clock = ManualClock()
    fake.answer(changed(temperature={"missing": "hung"}))
    nvml = Nvml(LiveSource(prober, gpu_deadline=0.3), clock, list)
    for _ in range(60):
        for gpu in nvml.gpus():
            gpu.ask("temperature")
        assert len(prober.pids()) <= 1
        clock.advance(60)
    assert "silent for 3600 s" in nvml.silent()["gpu/3"]


def test_a_group_that_answers_again_is_believed(fake: FakeNvml, prober: Prober) -> None:
    clock = ManualClock()
    fake.answer(changed(temperature={"missing": "hung"}))
    nvml = Nvml(LiveSource(prober, gpu_deadline=1.0), clock, list)
    nvml.gpus()[3].ask("temperature")
    fake.answer(changed())
    assert isinstance(nvml.gpus()[3].ask("temperature"), Missing), "left alone until the pause is over"
    clock.advance(61)
    assert nvml.gpus()[3].ask("temperature") == 32
    assert nvml.silent() == {}


def test_the_whole_command_line_sees_the_gpus(fake: FakeNvml) -> None:
    command = [sys.executable, "-I", "-m", "daemons", "scan", "--check", "gpu_count", "--check", "ecc", "--json"]
    environment = {**os.environ, **fake.environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (0, "ok")
    assert [f["values"]["gpus_visible"] for f in report["findings"] if f["component"] == "gpu"] == [8.0]


def test_an_nvml_that_does_not_begin_in_time_is_left_alone(fake: FakeNvml, prober: Prober) -> None:
    fake.answer({"system": {"driver": {"missing": "hung"}}, "gpus": []})
    nvml = Nvml(LiveSource(prober, driver_deadline=0.5), SystemClock(), list)
    missing = nvml.state()
    assert missing == Missing(Reason.HUNG, "nvml:driver gave no answer within 0.5 s")
    assert prober.pids() == []


def test_a_deadline_of_one_gpu_is_a_probe_timeout(fake: FakeNvml, prober: Prober) -> None:
    fake.answer(changed(power={"missing": "hung"}))
    with pytest.raises(ProbeTimeout, match=r"nvml:gpu3 gave no answer within 0\.5 s"):
        LiveSource(prober, gpu_deadline=0.5).gpu(3, "load")
