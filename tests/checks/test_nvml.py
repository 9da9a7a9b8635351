"""NVML as checks see it: what is asked once, what is left alone and for how long, who keeps which number."""

from collections.abc import Iterator

import pytest

from checks.base import Finding, Status
from checks.clock import ManualClock
from checks.gpu.answers import GROUPS, Missing, NoAnswer, Reason
from checks.gpu.nvml import Answers, Gpu, Nvml, each_gpu
from checks.prober import ProbeFailed, ProbeHung, ProbeTimeout

PCI = ["0000:18:00.0", "0000:2a:00.0", "0000:3a:00.0", "0000:5d:00.0"]


class FakeSource:
    """NVML with as many GPUs as addresses; counts its readings; `answers` and `raises` are changed by tests."""

    def __init__(self) -> None:
        self.pci = list(PCI)
        self.answers: dict[str, object] = {}
        self.raises: dict[tuple[int, str], Exception] = {}
        self.driver_raises: Exception | None = None
        self.driver_answer: Answers | None = None
        self.readings: list[str] = []

    def driver(self) -> Answers:
        self.readings.append("driver")
        if self.driver_raises:
            raise self.driver_raises
        return self.driver_answer or {"driver_version": "570.124.06", "gpus": len(self.pci)}

    def gpu(self, index: int, group: str) -> Answers:
        self.readings.append(f"{index} {group}")
        if error := self.raises.get((index, group)):
            raise error
        own = {"pci": self.pci[index], "name": "NVIDIA H100 80GB HBM3", "temperature": 30 + index, **self.answers}
        return {question: own.get(question, {"missing": "not_supported"}) for question in GROUPS[group]}


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def nvml(source: FakeSource, clock: ManualClock) -> Nvml:
    return Nvml(source, clock, lambda: list(PCI))


def timeout(index: int) -> ProbeTimeout:
    return ProbeTimeout(f"nvml:gpu{index} gave no answer within 5 s")


def test_all_checks_of_one_tick_share_one_reading(nvml: Nvml, source: FakeSource, clock: ManualClock) -> None:
    for _ in range(3):
        for gpu in nvml.gpus():
            gpu.ask("temperature")
            gpu.ask("power")
    assert sorted(source.readings) == sorted(
        ["driver", *(f"{i} identity" for i in range(4)), *(f"{i} load" for i in range(4))]
    )
    clock.advance(5.0)
    nvml.gpus()[0].ask("power")
    assert source.readings.count("0 load") == 2


def test_a_silent_gpu_is_left_alone_for_longer_each_time(nvml: Nvml, source: FakeSource, clock: ManualClock) -> None:
    source.raises[2, "load"] = timeout(2)
    tries = []
    for second in range(3600):
        before = len(source.readings)
        nvml.gpus()[2].ask("temperature")
        if "2 load" in source.readings[before:]:
            tries.append(second)
        clock.advance(1.0)
    assert tries == [0, 60, 180, 420, 900, 1500, 2100, 2700, 3300]


def test_a_silent_gpu_has_no_answer_at_all_and_the_others_have(nvml: Nvml, source: FakeSource) -> None:
    source.raises[2, "load"] = timeout(2)
    gpus = nvml.gpus()
    assert isinstance(gpus[2].ask("temperature"), Missing)
    assert gpus[2].ask("ecc_mode") == Missing(Reason.HUNG, "nvml:gpu2 gave no answer within 5 s")
    assert gpus[3].ask("temperature") == 33
    assert nvml.silent() == {
        "gpu/2": "nvml:gpu2 gave no answer within 5 s (asked for load; silent for 0 s)",
    }


def test_another_group_that_answers_does_not_end_the_silence(
    nvml: Nvml, source: FakeSource, clock: ManualClock
) -> None:
    source.raises[2, "load"] = timeout(2)
    nvml.gpus()[2].ask("temperature")
    clock.advance(61)
    assert nvml.gpus()[2].ask("ecc_mode") == Missing(Reason.NOT_SUPPORTED)
    assert list(nvml.silent()) == ["gpu/2"]
    source.raises.clear()
    assert nvml.gpus()[2].ask("temperature") == 32
    assert nvml.silent() == {}


def test_a_child_that_cannot_be_killed_counts_as_silent_and_no_other_is_started(nvml: Nvml, source: FakeSource) -> None:
    source.raises[1, "health"] = ProbeHung("nvml:gpu1", 7.0, 4242)
    answer = nvml.gpus()[1].ask("ecc_mode")
    assert isinstance(answer, Missing)
    assert answer.missing is Reason.HUNG
    assert source.readings.count("1 health") == 1


def test_two_silent_gpus_mean_that_the_driver_is(nvml: Nvml, source: FakeSource, clock: ManualClock) -> None:
    source.raises = {(index, "load"): timeout(index) for index in range(4)}
    for gpu in nvml.gpus():
        gpu.ask("temperature")
    assert [reading for reading in source.readings if "load" in reading] == ["0 load", "1 load", "2 load", "3 load"]
    state = nvml.state()
    assert state is not None
    assert (state.missing, state.text[:24]) == (Reason.HUNG, "several GPUs are silent:")
    assert nvml.gpus() == []
    clock.advance(601)
    assert nvml.state() is None, "it is asked again after its pause"


def test_a_driver_that_hangs_is_asked_once_a_pause(nvml: Nvml, source: FakeSource, clock: ManualClock) -> None:
    source.driver_raises = ProbeTimeout("nvml:driver gave no answer within 30 s")
    for _ in range(59):
        assert nvml.state() == Missing(Reason.HUNG, "nvml:driver gave no answer within 30 s")
        clock.advance(1.0)
    assert source.readings == ["driver"]


def test_a_probe_that_breaks_is_an_error_and_no_silence(nvml: Nvml, source: FakeSource) -> None:
    source.raises[0, "load"] = ProbeFailed("nvml:gpu0: the probe ended by itself (signal 11)")
    assert nvml.gpus()[0].ask("power") == Missing(Reason.ERROR, "nvml:gpu0: the probe ended by itself (signal 11)")
    assert nvml.silent() == {}


def test_numbers_follow_pci_and_stay_when_another_gpu_vanishes(
    nvml: Nvml, source: FakeSource, clock: ManualClock
) -> None:
    assert [gpu.number for gpu in nvml.gpus()] == [0, 1, 2, 3]
    del source.pci[1]
    clock.advance(60)
    assert [(gpu.index, gpu.number) for gpu in nvml.gpus()] == [(0, 0), (1, 2), (2, 3)]


def test_numbers_of_an_earlier_life_are_taken_over(source: FakeSource, clock: ManualClock) -> None:
    del source.pci[0]
    again = Nvml(source, clock, lambda: PCI[1:])
    again.remember({pci: number for number, pci in enumerate(PCI)})
    assert [gpu.component for gpu in again.gpus()] == ["gpu/1", "gpu/2", "gpu/3"]


def test_a_gpu_that_was_never_seen_takes_a_free_number(source: FakeSource, clock: ManualClock) -> None:
    nvml = Nvml(source, clock, list)
    nvml.remember({PCI[1]: 0})
    assert sorted(gpu.number for gpu in nvml.gpus()) == [0, 1, 2, 3]


def test_a_number_asks_no_nvml(nvml: Nvml, source: FakeSource) -> None:
    assert nvml.number("0000:3a:00.0") == 2
    assert source.readings == []


@pytest.mark.parametrize("value", [-1, True, "12", 3.5, None, [1]])
def test_what_is_no_number_is_no_answer(value: object, nvml: Nvml, source: FakeSource) -> None:
    source.answers["power"] = value
    with pytest.raises(NoAnswer):
        nvml.gpus()[0].integer("power")


def statuses(nvml: Nvml, source: FakeSource, answer: object) -> list[tuple[str, Status, str]]:
    source.answers["power"] = answer

    def judge(gpu: Gpu) -> Iterator[Finding]:
        yield Finding(component=gpu.component, status=Status.OK, summary=f"{gpu.integer('power')} mW")

    return [(finding.component, finding.status, finding.kind) for finding in each_gpu(nvml, judge)][:1]


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("not_supported", Status.SKIPPED, ""),
        ("lost", Status.SKIPPED, ""),
        ("no_permission", Status.UNKNOWN, "no_power"),
        ("sentinel", Status.UNKNOWN, "no_power"),
        ("not_found", Status.UNKNOWN, "no_power"),
        ("error", Status.UNKNOWN, "no_power"),
    ],
)
def test_no_answer_is_never_ok(reason: str, status: Status, kind: str, nvml: Nvml, source: FakeSource) -> None:
    assert statuses(nvml, source, {"missing": reason, "text": "x"}) == [("gpu/0", status, kind)]


def test_permission_names_its_remedy(nvml: Nvml, source: FakeSource) -> None:
    source.answers["power"] = {"missing": "no_permission", "text": "Insufficient Permissions"}

    def judge(gpu: Gpu) -> Iterator[Finding]:
        yield Finding(component=gpu.component, status=Status.OK, summary=f"{gpu.integer('power')}")

    first = next(each_gpu(nvml, judge))
    assert (first.summary, first.advice) == ("power: Insufficient Permissions", "run the agent as root")


def test_without_a_driver_there_is_one_skipped_finding(nvml: Nvml, source: FakeSource) -> None:
    source.driver_answer = {"driver": {"missing": "no_driver", "text": "Driver Not Loaded"}}
    assert statuses(nvml, source, 1) == [("gpu", Status.SKIPPED, "")]


def test_with_a_driver_and_no_gpu_there_is_one_skipped_finding(nvml: Nvml, source: FakeSource) -> None:
    source.pci.clear()
    assert statuses(nvml, source, 1) == [("gpu", Status.SKIPPED, "")]
