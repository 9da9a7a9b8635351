"""edac, cpu, services, sysctl and reboot: exact findings of healthy, sick and damaged nodes."""

import struct
from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import ClearRule, Memory
from checks.host import CommandError, Unreadable
from checks.system import cpu, edac, reboot, services, sysctl

MC = "sys/devices/system/edac/mc/mc0"
CPUS = "sys/devices/system/cpu"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    node.write({f"{MC}/ce_count": "0", f"{MC}/ue_count": "0"})
    for dimm in ("dimm0", "dimm1"):
        node.write({f"{MC}/{dimm}/{name}": "0" for name in ("dimm_ce_count", "dimm_ue_count")})
        node.write({f"{MC}/{dimm}/dimm_label": f"CPU0_{dimm.upper()}"})
    node.write(
        {f"{CPUS}/present": "0-3", f"{CPUS}/online": "0-3", f"{CPUS}/offline": "\n", f"{CPUS}/smt/control": "on"}
    )
    for number in range(4):
        base = f"{CPUS}/cpu{number}"
        node.write({f"{base}/cpufreq/scaling_governor": "performance"})
        node.write({f"{base}/topology/physical_package_id": str(number // 2)})
        node.write({f"{base}/thermal_throttle/package_throttle_count": "7"})
    return node


def test_edac_healthy(node: Node) -> None:
    (found,) = look(edac.CHECK, node)
    assert told([found]) == [("memory/mc0", "ok", "", "0 corrected and no uncorrected errors since boot")]
    assert set(found.values) == set(edac.CHECK.metrics)


def test_edac_uncorrected_fails_until_a_reboot_and_names_the_dimm(node: Node) -> None:
    node.write({f"{MC}/ue_count": "1", f"{MC}/dimm1/dimm_ue_count": "1"})
    (found,) = look(edac.CHECK, node)
    said = "1 uncorrected memory errors since boot on CPU0_DIMM1"
    assert told([found]) == [("memory/mc0", "fail", "uncorrected", said)]
    assert found.clear is ClearRule.REBOOT


def test_edac_corrected_are_judged_by_the_day(node: Node) -> None:
    memory: Memory = {}
    node.write({f"{MC}/dimm0/dimm_ce_count": "90000"})  # of a year
    look(edac.CHECK, node, memory)
    node.clock.advance(60)
    node.write({f"{MC}/dimm0/dimm_ce_count": "90100"})
    said = "100 corrected errors within a day on CPU0_DIMM0"
    assert troubles(look(edac.CHECK, node, memory)) == [("memory/mc0/dimm0", "warn", "corrected", said)]
    node.clock.advance(86_401)
    assert troubles(look(edac.CHECK, node, memory)) == []


def test_edac_without_dimms_judges_the_controller(node: Node) -> None:
    memory: Memory = {}
    node.write({f"{MC}/dimm0": None, f"{MC}/dimm1": None})
    look(edac.CHECK, node, memory)
    node.write({f"{MC}/ce_count": "500"})
    assert troubles(look(edac.CHECK, node, memory)) == [
        ("memory/mc0/all", "warn", "corrected", "500 corrected errors within a day on mc0")
    ]


@pytest.mark.parametrize("text", ["N/A", "-1", ""])
def test_edac_garbage_is_unknown(node: Node, text: str) -> None:
    node.write({f"{MC}/ue_count": text})
    assert [line[:3] for line in told(look(edac.CHECK, node))] == [("memory/mc0", "unknown", "unreadable")]


def test_edac_without_a_driver_is_skipped(node: Node) -> None:
    node.write({"sys/devices/system/edac": None})
    assert told(look(edac.CHECK, node))[0][:2] == ("memory", "skipped")


def test_cpu_healthy(node: Node) -> None:
    assert told(look(cpu.CHECK, node)) == [
        ("cpu/online", "ok", "", "4 of 4 online"),
        ("cpu/governor", "ok", "", "performance on 4"),
        ("cpu/throttle", "ok", "", "first look at its counts"),
    ]


def test_cpu_offline_is_told_unless_it_is_smt(node: Node) -> None:
    node.write({f"{CPUS}/online": "0-2", f"{CPUS}/offline": "3"})
    (found, *_) = look(cpu.CHECK, node)
    assert told([found]) == [("cpu/online", "warn", "offline", "1 of 4 processors are offline")]
    assert found.evidence == "offline: 3"
    node.write({f"{CPUS}/online": "0-1", f"{CPUS}/smt/control": "off"})
    assert told(look(cpu.CHECK, node))[0] == ("cpu/online", "ok", "", "2 of 4 online (SMT is off)")
    node.write({f"{CPUS}/online": "0"})
    assert told(look(cpu.CHECK, node))[0][1] == "warn"


def test_cpu_governor(node: Node) -> None:
    node.write({f"{CPUS}/cpu3/cpufreq/scaling_governor": "powersave"})
    said = "powersave on 1 processors, want performance"
    assert troubles(look(cpu.CHECK, node)) == [("cpu/governor", "warn", "governor", said)]
    assert troubles(look(cpu.CHECK, node, governor="")) == []
    node.write({f"{CPUS}/cpu3/cpufreq/energy_performance_preference": "performance"})
    assert troubles(look(cpu.CHECK, node)) == []


def test_cpu_throttling_by_the_hour(node: Node) -> None:
    memory: Memory = {}
    look(cpu.CHECK, node, memory)
    node.clock.advance(300)
    node.write({f"{CPUS}/cpu3/thermal_throttle/package_throttle_count": "19"})
    said = "package 1 was slowed for its heat 12 times within the hour"
    assert troubles(look(cpu.CHECK, node, memory)) == [("cpu/throttle", "warn", "throttled", said)]
    node.clock.advance(3601)
    assert told(look(cpu.CHECK, node, memory))[2][3] == "not slowed for its heat within the hour"


def test_cpu_virtual_machine_has_neither(node: Node) -> None:
    for number in range(4):
        node.write({f"{CPUS}/cpu{number}/cpufreq": None, f"{CPUS}/cpu{number}/thermal_throttle": None})
    assert [line[:2] for line in told(look(cpu.CHECK, node))] == [
        ("cpu/online", "ok"),
        ("cpu/governor", "skipped"),
        ("cpu/throttle", "skipped"),
    ]


@pytest.mark.parametrize(("text", "number"), [("0-3", 4), ("0", 1), ("0-1,4,8-10", 6), ("", 0)])
def test_cpu_lists(text: str, number: int) -> None:
    assert cpu.count(text) == number


def test_cpu_list_that_is_none(node: Node) -> None:
    node.write({f"{CPUS}/online": "N/A"})
    with pytest.raises(Unreadable, match="'N/A' is no list of processors"):
        look(cpu.CHECK, node)


SHOW = "systemctl show --property=Id,LoadState,ActiveState,SubState,Result,NRestarts slurmd.service data.mount"
UP = "Id={}\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNRestarts={}\n"
DOWN = "Id=data.mount\nLoadState=loaded\nActiveState={}\nSubState=dead\nResult=exit-code\nNRestarts=0\n"
UNITS = ["slurmd", "data.mount"]


def units(node: Node, first: str, second: str) -> None:
    node.answer(commands={SHOW: [0, f"{first}\n{second}", ""]})


def test_services_healthy(node: Node) -> None:
    units(node, UP.format("slurmd.service", 0), UP.format("data.mount", 0))
    assert told(look(services.CHECK, node, units=UNITS)) == [
        ("service/slurmd.service", "ok", "", "active (running)"),
        ("service/data.mount", "ok", "", "active (running)"),
    ]


@pytest.mark.parametrize(
    ("second", "status", "kind", "said"),
    [
        (DOWN.format("failed"), "fail", "down", "failed (dead, result exit-code)"),
        (DOWN.format("inactive"), "fail", "down", "inactive (dead, result exit-code)"),
        (DOWN.format("activating"), "warn", "down", "activating (dead, result exit-code)"),
        ("Id=data.mount\nLoadState=not-found\nActiveState=inactive\n", "fail", "missing", "no such unit is installed"),
        ("garbage", "fail", "down", "? (?, result ?)"),
    ],
)
def test_services_down(node: Node, second: str, status: str, kind: str, said: str) -> None:
    units(node, UP.format("slurmd.service", 0), second)
    found = troubles(look(services.CHECK, node, units=UNITS))
    assert found == [("service/data.mount", status, kind, f"data.mount: {said}")]


def test_services_that_start_over_and_over(node: Node) -> None:
    memory: Memory = {}
    for restarts, expected in ((4, []), (6, []), (7, ["restarts"])):
        units(node, UP.format("slurmd.service", restarts), UP.format("data.mount", 0))
        assert [line[2] for line in troubles(look(services.CHECK, node, memory, units=UNITS))] == expected
        node.clock.advance(60)


def test_services_without_systemd_or_configuration(node: Node) -> None:
    with pytest.raises(CommandError):
        look(services.CHECK, node, units=UNITS)
    node.answer(commands={SHOW: [1, "", "System has not been booted with systemd as init system (PID 1)."]})
    with pytest.raises(Unreadable, match="not been booted with systemd"):
        look(services.CHECK, node, units=UNITS)
    assert told(look(services.CHECK, node))[0][:2] == ("service", "skipped")


def test_sysctl(node: Node) -> None:
    node.write({"proc/sys/kernel/numa_balancing": "1", "proc/sys/net/core/rmem_max": "212992"})
    node.write({"proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456", "proc/sys/vm/odd": "N/A"})
    expected = {
        "kernel.numa_balancing": "0",
        "net.core.rmem_max": ">=67108864",
        "net.ipv4.tcp_rmem": "4096 131072 6291456",
        "vm.odd": "<=5",
        "vm.none": "1",
    }
    assert told(look(sysctl.CHECK, node, expected=expected)) == [
        ("sysctl/kernel.numa_balancing", "warn", "differs", "kernel.numa_balancing is 1, want 0"),
        ("sysctl/net.core.rmem_max", "warn", "differs", "net.core.rmem_max is 212992, want >=67108864"),
        ("sysctl/net.ipv4.tcp_rmem", "ok", "", "4096 131072 6291456"),
        ("sysctl/vm.odd", "unknown", "unreadable", "invalid literal for int() with base 10: 'N/A'"),
        ("sysctl/vm.none", "unknown", "unreadable", "/proc/sys/vm/none: No such file or directory"),
    ]
    assert told(look(sysctl.CHECK, node))[0][:2] == ("sysctl", "skipped")


BOOTED = 1_700_000_000.0 - 864_000.0


def record(kind: int, user: bytes, when: float) -> bytes:
    return struct.pack(
        "<hxxi32s4s32s256shhiii4i20x", kind, 0, b"~", b"~~", user, b"5.15", 0, 0, 0, int(when), 0, 0, 0, 0, 0
    )


BOOT, SHUTDOWN, LOGIN = (2, b"reboot"), (1, b"shutdown"), (7, b"alice")


def wtmp(node: Node, *records: tuple[tuple[int, bytes], float], torn: bytes = b"") -> None:
    node.write({"var/log/wtmp": b"".join(record(*what, when) for what, when in records) + torn})


def test_reboot_after_a_shutdown(node: Node) -> None:
    wtmp(node, (BOOT, BOOTED - 9e5), (LOGIN, BOOTED - 1e5), (SHUTDOWN, BOOTED - 300), (BOOT, BOOTED), torn=b"\0" * 9)
    (found,) = look(reboot.CHECK, node)
    assert told([found]) == [("node", "ok", "", "up for 10 days, was shut down before")]
    assert found.values == {"node_boot_timestamp_seconds": BOOTED, "node_crashes": 0.0}


def test_reboot_without_a_shutdown_is_told_for_an_hour(node: Node) -> None:
    node.write({"proc/uptime": "600.0 1.0"})
    booted = 1_700_000_000.0 - 600.0
    wtmp(node, (SHUTDOWN, booted - 9e5), (BOOT, booted - 8e5), (BOOT, booted))
    memory: Memory = {}
    said = "up for 10 min, was not shut down before: power loss, crash or reset"
    assert troubles(look(reboot.CHECK, node, memory)) == [("node", "warn", "crashed", said)]
    node.clock.advance(3600)
    node.write({"proc/uptime": "4200.0 1.0"})
    assert troubles(look(reboot.CHECK, node, memory)) == []


def test_reboot_after_a_panic_shows_its_dump(node: Node) -> None:
    node.write({"proc/uptime": "600.0 1.0", "sys/fs/pstore/dmesg-efi-170000000001": "Oops"})
    (found,) = look(reboot.CHECK, node)
    assert (found.kind, found.evidence) == ("crashed", "/sys/fs/pstore/dmesg-efi-170000000001")


def test_reboot_again_and_again_fails_and_is_forgotten_after_a_week(node: Node) -> None:
    memory: Memory = {}
    for crash in range(3):
        boot = f"00000000-0000-4000-8000-00000000000{crash}"
        node.write({"proc/sys/kernel/random/boot_id": boot, "proc/uptime": "90000.0 1.0"})
        booted = node.clock.now() - 90_000
        wtmp(node, (BOOT, booted - 9e5), (BOOT, booted))
        found = troubles(look(reboot.CHECK, node, memory))
        node.clock.advance(86_400)
    said = "up for 25 h, was not shut down before: power loss, crash or reset; 3 boots without a shutdown within 7 days"
    assert found == [("node", "fail", "crashes", said)]
    node.clock.advance(7 * 86_400)
    assert troubles(look(reboot.CHECK, node, memory)) == []


def test_reboot_without_records_is_not_known(node: Node) -> None:
    assert told(look(reboot.CHECK, node))[0][3] == "up for 10 days, how it went down before is not recorded"
    node.write({"var/log/wtmp": b"\xff" * 400})
    assert told(look(reboot.CHECK, node))[0][1] == "ok"
