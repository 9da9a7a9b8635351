"""Single GPU checks on what scenarios do not show: memory, configuration, bad values, the boundaries of thresholds."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scenarios import NODES

from checks.base import Check, Finding, Memory, Status
from checks.clock import ManualClock
from checks.gpu import (
    ecc,
    gpu_count,
    nvlink_errors,
    nvlink_state,
    pcie_link,
    pcie_replay,
    power,
    spin_hang,
    sxid,
    temperature,
    throttle,
    utilization,
    xid,
)
from checks.gpu.models import model, models
from checks.gpu.window import sample, spans
from checks.host import Host, recorded
from daemons.config import parse
from daemons.errors import ConfigError


@pytest.fixture
def host() -> Iterator[Host]:
    with closing(recorded(NODES / "h100x8_healthy", ManualClock())) as opened:
        yield opened


def answer(host: Host, index: int | None, **changes: Any) -> None:
    """Change what NVML says of one GPU, or of all."""
    path = host.root / "nvml.json"
    tree = msgspec.json.decode(path.read_bytes())
    (tree["all"] if index is None else tree["gpus"][index]).update(changes)
    path.write_bytes(msgspec.json.encode(tree))
    forward(host, 6)


def forward(host: Host, seconds: float) -> None:
    assert isinstance(host.clock, ManualClock)
    host.clock.advance(seconds)
    host.catch_up()


def look(host: Host, check: Check, memory: Memory | None = None, **settings: object) -> list[Finding]:
    config = msgspec.convert(settings, check.config)
    return list(check.run(host, config, {} if memory is None else memory))


def bad(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(f.component, str(f.status), f.kind) for f in findings if f.status not in (Status.OK, Status.SKIPPED)]


def log(host: Host, *lines: str | bytes) -> None:
    path = host.dev / "kmsg"
    start = len(path.read_bytes().splitlines())
    with path.open("ab") as file:
        for number, text in enumerate(lines):
            raw = text if isinstance(text, bytes) else text.encode()
            file.write(f"4,{start + number},{864_000_000_000 + number},-;".encode() + raw + b"\n")


class TestGpuCount:
    def vanish(self, host: Host, index: int) -> None:
        path = host.root / "nvml.json"
        tree = msgspec.json.decode(path.read_bytes())
        self.gone = tree["gpus"].pop(index)
        path.write_bytes(msgspec.json.encode(tree))
        (host.sys / "bus/pci/devices" / self.gone["pci"]).unlink()
        forward(host, 60)

    def test_a_gpu_that_vanished_keeps_its_identity(self, host: Host) -> None:
        memory: Memory = {}
        look(host, gpu_count.CHECK, memory)
        self.vanish(host, 3)
        (lost,) = [f for f in look(host, gpu_count.CHECK, memory) if f.status is Status.FAIL]
        assert (lost.component, lost.cause) == ("gpu/3", "gpu.lost")
        assert lost.summary == "NVIDIA H100 80GB HBM3 at 0000:5d:00.0 has vanished from NVML, not on PCI either"
        assert lost.evidence == f"UUID {self.gone['uuid']}, serial {self.gone['serial']}"

    def test_what_was_there_is_known_after_the_agent_was_restarted(self, host: Host) -> None:
        memory: Memory = {}
        look(host, gpu_count.CHECK, memory)
        self.vanish(host, 0)
        kept = msgspec.json.decode(msgspec.json.encode(memory))
        with closing(Host(root=host.root, clock=host.clock, answers=host.answers)) as again:
            found = look(again, gpu_count.CHECK, kept)
        assert bad(found) == [("gpu/0", "fail", "lost")]
        assert next(f.component for f in found if f.status is Status.OK) == "gpu/1"

    def test_a_number_of_gpus_that_is_configured_is_missed_from_the_first_look(self, host: Host) -> None:
        self.vanish(host, 2)
        found = look(host, gpu_count.CHECK, expected=8)
        assert bad(found) == [("gpu", "fail", "count")]
        assert [f.values for f in found if f.component == "gpu"] == [
            {"gpus_visible": 7.0, "gpus_expected": 8.0, "gpus_enumerated": 7.0}
        ]

    def test_a_gpu_that_was_taken_out_on_purpose_is_forgotten(self, host: Host) -> None:
        memory: Memory = {}
        look(host, gpu_count.CHECK, memory)
        self.vanish(host, 7)
        assert bad(look(host, gpu_count.CHECK, memory, expected=7)) == []
        assert len(memory["gpus"]) == 7

    def test_a_gpu_on_pci_that_nvml_never_gave_is_told_of(self, host: Host) -> None:
        memory: Memory = {}
        path = host.root / "nvml.json"
        tree = msgspec.json.decode(path.read_bytes())
        tree["gpus"].pop(4)
        path.write_bytes(msgspec.json.encode(tree))
        (lost,) = [f for f in look(host, gpu_count.CHECK, memory) if f.status is Status.FAIL]
        assert lost.summary == "GPU at 0000:9a:00.0 has vanished from NVML, still on PCI"


class TestXid:
    def test_lines_are_counted_once_each_and_kept_over_runs(self, host: Host) -> None:
        memory: Memory = {}
        log(host, "NVRM: Xid (PCI:0000:5d:00): 119, Timeout after 45s", "NVRM: Xid (PCI:0000:5d:00): 119, Timeout")
        first = look(host, xid.CHECK, memory)
        assert bad(first) == [("gpu/3", "fail", "xid119")]
        again = look(host, xid.CHECK, memory)
        assert bad(again) == []
        assert [f.values for f in again if f.component == "gpu/3"] == [{"xids_total": 2.0}]

    def test_evidence_and_time_are_those_of_the_lines(self, host: Host) -> None:
        log(host, "NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus.")
        (found,) = [f for f in look(host, xid.CHECK) if f.status is Status.FAIL]
        assert found.evidence == "NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus."
        assert found.first_seen == pytest.approx(host.clock.now(), abs=1)

    def test_a_companion_that_comes_later_is_judged_with_what_was_before(self, host: Host) -> None:
        memory: Memory = {}
        log(host, "NVRM: Xid (PCI:0000:5d:00): 48, DBE")
        look(host, xid.CHECK, memory)
        log(host, "NVRM: Xid (PCI:0000:5d:00): 63, Row Remapper: New row marked for remapping")
        (found,) = [f for f in look(host, xid.CHECK, memory) if f.status is Status.FAIL]
        assert (found.kind, found.advice.split(":")[0]) == ("xid48", "drain the node and reset the GPU")

    def test_a_site_overrides_a_code(self, host: Host) -> None:
        log(host, "NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus.")
        override = {"79": {"status": "warn", "advice": "call the hall"}}
        (found,) = [f for f in look(host, xid.CHECK, override=override) if f.status is Status.WARN]
        assert found.advice == "call the hall"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[checks.xid.override.abc]\nstatus = 'warn'\n", "checks.xid.override"),
            (
                "[checks.xid.override.79]\nstatus = 'unknown'\n",
                "override\\[.\\].status: invalid enum value 'unknown'",
            ),
            (
                "[checks.xid.override.79]\nstaus = 'warn'\n",
                "override\\[.\\].staus: unknown key; known here: advice, cause, clear, status",
            ),
        ],
    )
    def test_a_wrong_override_is_refused(self, text: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            parse(text, "m.toml")

    def test_a_line_with_bytes_that_are_no_text_is_read(self, host: Host) -> None:
        log(host, b"NVRM: Xid (PCI:0000:5d:00): 79, pid=1, name=\xff\xfe, GPU has fallen off the bus.")
        assert bad(look(host, xid.CHECK)) == [("gpu/3", "fail", "xid79")]

    def test_lines_lost_are_left_to_the_check_of_the_log(self, host: Host) -> None:
        memory: Memory = {}
        look(host, xid.CHECK, memory)
        with (host.dev / "kmsg").open("a") as file:
            file.write("4,500,864000000000,-;NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus.\n")
        found = look(host, xid.CHECK, memory)
        assert [(str(f.status), f.summary) for f in found if f.component == "kernel_log"] == [
            ("skipped", "497 lines were overwritten before they were read: see kernel_log")
        ]
        assert bad(found) == [("gpu/3", "fail", "xid79")]

    def test_a_flood_is_bounded_in_memory(self, host: Host) -> None:
        memory: Memory = {}
        log(host, *["NVRM: Xid (PCI:0000:5d:00): 31, pid=1, name=x, Ch 1"] * 5000)
        look(host, xid.CHECK, memory)
        assert len(memory["events"]) == 20
        assert memory["counts"] == {"0000:5d:00.0": 5000}

    def test_a_gpu_that_left_pci_is_named_as_before(self, host: Host) -> None:
        look(host, gpu_count.CHECK, {})
        (host.sys / "bus/pci/devices/0000:5d:00.0").unlink()
        log(host, "NVRM: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus.")
        assert bad(look(host, xid.CHECK)) == [("gpu/3", "fail", "xid79")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32", [("nvswitch/3", "warn", "sxid12028")]),
        ("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 09", [("nvswitch/0", "fail", "sxid20034")]),
        ("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20009, Link 09 RX", [("nvswitch/0", "fail", "sxid20009")]),
        ("nvidia-nvswitch0: using MSI", []),
        ("somebody writes SXid (PCI:0000:05:00.0): 12028", []),
    ],
)
def test_sxid_lines(line: str, expected: list[tuple[str, str, str]], host: Host) -> None:
    log(host, line)
    assert bad(look(host, sxid.CHECK)) == expected


def test_sxids_that_a_site_does_not_want_are_left_out(host: Host) -> None:
    log(host, "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32")
    assert bad(look(host, sxid.CHECK, ignore=[12028])) == []


class TestPcieLink:
    BRIDGE = "sys/devices/pci0000:5d/0000:5b:01.0/0000:5c:01.0"

    def test_a_bridge_above_the_gpu_that_lost_lanes_is_named(self, host: Host) -> None:
        (host.root / self.BRIDGE / "current_link_width").write_text("8")
        assert bad(look(host, pcie_link.CHECK)) == [("gpu/3/pci/0000:5c:01.0", "fail", "lanes")]

    def test_a_slot_that_is_narrower_than_the_bridge_is_no_fault(self, host: Host) -> None:
        (host.root / self.BRIDGE / "current_link_width").write_text("8")
        (host.root / self.BRIDGE).parent.joinpath("max_link_width").write_text("8")
        assert bad(look(host, pcie_link.CHECK)) == []

    @pytest.mark.parametrize("text", ["", "N/A", "-1", "255", "garbage"])
    def test_a_bridge_that_gives_no_width_is_left_out(self, text: str, host: Host) -> None:
        (host.root / self.BRIDGE / "current_link_width").write_text(text)
        assert bad(look(host, pcie_link.CHECK)) == []

    def test_an_idle_gpu_may_lower_its_generation(self, host: Host) -> None:
        answer(host, 0, pcie_now=[1, 16])
        assert bad(look(host, pcie_link.CHECK)) == []


def test_replays_are_judged_as_a_rate_and_not_by_their_total(host: Host) -> None:
    memory: Memory = {}
    answer(host, 0, pcie_replays=1_000_000)
    assert bad(look(host, pcie_replay.CHECK, memory)) == []
    answer(host, 0, pcie_replays=1_000_060)
    assert bad(look(host, pcie_replay.CHECK, memory)) == []
    answer(host, 0, pcie_replays=1_000_061)
    assert bad(look(host, pcie_replay.CHECK, memory)) == [("gpu/0", "warn", "replays")]
    answer(host, 0, pcie_replays=2_000_000)
    assert bad(look(host, pcie_replay.CHECK, memory)) == [("gpu/0", "fail", "replays")]


def test_corrected_errors_that_a_reset_put_back_to_zero_are_no_flood(host: Host) -> None:
    memory: Memory = {}
    answer(host, 0, ecc_volatile_corrected_dram=5_000_000)
    look(host, ecc.CHECK, memory)
    answer(host, 0, ecc_volatile_corrected_dram=0)
    assert bad(look(host, ecc.CHECK, memory)) == []


def test_sram_errors_of_an_old_driver_are_judged_by_their_number(host: Host) -> None:
    answer(host, 0, sram_threshold_exceeded={"missing": "not_supported"}, ecc_aggregate_uncorrected_sram=4)
    assert bad(look(host, ecc.CHECK)) == []
    answer(host, 0, ecc_aggregate_uncorrected_sram=5)
    assert bad(look(host, ecc.CHECK)) == [("gpu/0", "fail", "sram_threshold")]


@pytest.mark.parametrize(
    ("celsius", "margin", "expected"),
    [
        (60, 27, []),
        (83, 4, []),
        (84, 3, [("gpu/0", "warn", "hot")]),
        (87, 0, [("gpu/0", "fail", "hot")]),
        (91, -4, [("gpu/0", "fail", "hot")]),
    ],
)
def test_temperature_by_the_gpus_own_margin(celsius: int, margin: int, expected: list[Any], host: Host) -> None:
    answer(host, 0, temperature=celsius, temperature_margin=margin)
    assert bad(look(host, temperature.CHECK)) == expected


def test_temperature_without_a_margin_is_judged_by_the_slowdown_temperature(host: Host) -> None:
    answer(host, 0, temperature=87, temperature_margin={"missing": "not_supported"})
    assert bad(look(host, temperature.CHECK)) == [("gpu/0", "fail", "hot")]


@pytest.mark.parametrize("value", [0, 151, 4_294_967_295, 9_223_372_036_854_775_794])
def test_a_temperature_that_is_none_is_unknown(value: int, host: Host) -> None:
    answer(host, 0, temperature=value)
    assert bad(look(host, temperature.CHECK)) == [("gpu/0", "unknown", "no_temperature")]


def test_one_sample_of_throttling_is_no_finding(host: Host) -> None:
    memory: Memory = {}
    for reasons in (0x40, 0, 0, 0, 0, 0):
        answer(host, 0, throttle_reasons=reasons)
        forward(host, 24)
        assert bad(look(host, throttle.CHECK, memory)) == []


def test_throttling_is_over_when_the_window_is(host: Host) -> None:
    memory: Memory = {}
    seen = []
    for reasons in [0x80] * 10 + [0] * 10:
        answer(host, 0, throttle_reasons=reasons)
        forward(host, 54)
        seen.append(bool(bad(look(host, throttle.CHECK, memory))))
    assert seen == [False] * 5 + [True] * 9 + [False] * 6


def test_a_limit_within_the_share_is_fine_and_the_one_who_set_it_is_told(host: Host) -> None:
    answer(host, 0, power_limit=665000, power_limit_enforced=665000)
    assert bad(look(host, power.CHECK)) == []
    answer(host, 0, power_limit=664000, power_limit_enforced=664000)
    answer(host, 1, power_limit_enforced=300000)
    words = [f.summary for f in look(host, power.CHECK) if f.status is Status.WARN]
    assert words == ["limit 664 W of 700 W, set by a user", "limit 300 W of 700 W, enforced by the platform"]


def test_a_busy_pcie_tells_a_spin_from_a_slow_job(host: Host) -> None:
    memory: Memory = {}
    spin = {"utilization": [100, 0], "power": 120000, "clock_sm": 1980}
    answer(host, 0, **spin, pcie_bytes=[0, 0])
    look(host, spin_hang.CHECK, memory)
    answer(host, 0, **spin, pcie_bytes=[6_000_000_000, 0])
    assert bad(look(host, spin_hang.CHECK, memory)) == []
    answer(host, 0, **spin, pcie_bytes=[6_001_000_000, 0])
    assert bad(look(host, spin_hang.CHECK, memory)) == [("gpu/0", "warn", "spin")]


def test_a_spin_on_an_unknown_model_says_by_what_it_was_judged(host: Host) -> None:
    answer(host, None, name="NVIDIA X900", utilization=[100, 0], power=120000, clock_sm=1980)
    first = next(f for f in look(host, spin_hang.CHECK) if f.status is Status.WARN)
    assert first.evidence == "below 175 W (a quarter of its limit: NVIDIA X900 is unknown)"


def test_a_new_job_begins_a_new_window_of_use(host: Host) -> None:
    memory: Memory = {}
    held = {"processes": [[9000, 1]], "utilization": [0, 0]}
    for minute in range(130):
        answer(host, 0, **(held if minute != 60 else {"processes": []}))
        forward(host, 54)
        found = bad(look(host, utilization.CHECK, memory))
        assert bool(found) == (54 <= minute < 60 or minute >= 121), minute


def test_a_link_that_is_up_again_is_said_to_be(host: Host) -> None:
    memory: Memory = {}
    answer(host, 0, nvlinks=[1] * 17 + [0])
    assert bad(look(host, nvlink_state.CHECK, memory)) == [("gpu/0/nvlink/17", "fail", "down")]
    answer(host, 0, nvlinks=[1] * 18)
    well = [f.component for f in look(host, nvlink_state.CHECK, memory) if f.status is Status.OK]
    assert "gpu/0/nvlink/17" in well
    assert "gpu/0/nvlink/16" not in well


def test_many_links_down_are_one_finding(host: Host) -> None:
    answer(host, 0, nvlinks=[1] * 15 + [0] * 3)
    assert bad(look(host, nvlink_state.CHECK)) == [("gpu/0", "fail", "links")]


def test_errors_of_a_link_are_a_rate_of_that_link(host: Host) -> None:
    memory: Memory = {}
    answer(host, 0, nvlink_crc=[10**9] * 18)
    assert bad(look(host, nvlink_errors.CHECK, memory)) == []
    answer(host, 0, nvlink_crc=[10**9 + 100] * 17 + [10**9 + 101])
    assert bad(look(host, nvlink_errors.CHECK, memory)) == [("gpu/0/nvlink/17", "warn", "crc")]


def test_every_model_has_a_source_and_can_be_reached() -> None:
    for entry in models():
        assert entry.source
        assert model(f"NVIDIA {entry.match} 80GB") is entry, f"{entry.match} stands behind a wider name"


@pytest.mark.parametrize(
    ("name", "links"),
    [
        ("NVIDIA H100 80GB HBM3", 18),
        ("NVIDIA H100 PCIe", 0),
        ("NVIDIA H200", 18),
        ("NVIDIA A100-SXM4-80GB", 12),
        ("NVIDIA A100 80GB PCIe", 0),
        ("NVIDIA GB200", 18),
        ("NVIDIA B200", 18),
    ],
)
def test_models_by_the_names_that_nvml_gives(name: str, links: int) -> None:
    found = model(name)
    assert found is not None
    assert found.nvlinks == links


def test_an_unknown_model_is_none() -> None:
    assert model("NVIDIA GeForce RTX 4090") is None


def test_a_window_forgets_what_is_older_and_what_was_before_a_reboot() -> None:
    memory: Memory = {}
    for at in (0.0, 60.0, 120.0):
        sample(memory, "gpu", at, at=at, boot="1", seconds=100.0)
    assert sample(memory, "gpu", 150.0, at=150.0, boot="1", seconds=100.0) == [60.0, 120.0, 150.0]
    assert spans(memory, "gpu", 100.0)
    assert sample(memory, "gpu", 1.0, at=1.0, boot="2", seconds=100.0) == [1.0]
    assert not spans(memory, "gpu", 100.0)


def test_a_recording_without_nvml_is_a_machine_without_the_library(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('{"node": "n", "now": 1.0}')
    with closing(recorded(tmp_path)) as bare:
        (found,) = look(bare, gpu_count.CHECK)
    assert (found.status, found.summary) == (Status.SKIPPED, "no NVIDIA GPU on PCI and no driver")
