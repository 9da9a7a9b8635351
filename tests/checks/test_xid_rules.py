"""What XID lines mean together: every companion rule, through each of its turns."""

import pytest

from checks.base import ClearRule, Status
from checks.gpu.xid_policy import Override
from checks.gpu.xid_rules import Verdict, XidEvent, judge, occurrences, parse, recovery_action

GPU = "0000:3b:00.0"
BOOT = "boot-2"


def event(code: int, at: float = 1000.0, text: str = "", boot: str = BOOT, pci: str = GPU, unit: str = "") -> XidEvent:
    return XidEvent(code=code, pci=pci, text=text or f"NVRM: Xid {code}", at=at, boot=boot, unit=unit)


def judged(*events: XidEvent, elsewhere: tuple[XidEvent, ...] = ()) -> list[tuple[int, str, str]]:
    return [(v.code, str(v.status), str(v.clear)) for v in judge(events, BOOT, None, elsewhere)]


def only(*events: XidEvent) -> Verdict:
    (verdict,) = judge(events, BOOT)
    return verdict


@pytest.mark.parametrize(
    ("line", "code", "pci", "unit"),
    [
        ("NVRM: Xid (PCI:0000:41:00): 79, pid=1234, name=python, GPU has fallen off the bus.", 79, "0000:41:00.0", ""),
        ("NVRM: Xid (0000:03:00): 14, Channel 00000001", 14, "0000:03:00.0", ""),
        ("NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus.", 79, "0000:41:00.0", ""),
        ("NVRM: Xid (PCI:0000:41:00): 45, pid='<unknown>', name=<unknown>, Ch 00000008", 45, "0000:41:00.0", ""),
        (
            "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000)",
            149,
            "0018:01:00.0",
            "",
        ),
        (
            "NVRM: Xid (PCI:0000:3B:00): 13, pid=9, name=python, Graphics SM Warp Exception on "
            "(GPC 4, TPC 2, SM 1): Out Of Range Address",
            13,
            GPU,
            "4 2 1",
        ),
        (
            "NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=python, Ch 00000012, intr 0. MMU Fault: ENGINE GRAPHICS "
            "GPCCLIENT_T1_4 faulted @ 0x7f00_00000000",
            31,
            GPU,
            "GRAPHICS GPCCLIENT_T1_4",
        ),
        ("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.", 79, GPU, ""),
        (
            "NVRM: The NVIDIA GPU 0000:3b:00.0 has fallen off the bus and is not responding to commands.",
            79,
            GPU,
            "",
        ),
        ("kernel: [12.5] NVRM: Xid (PCI:00000000:3B:00.0): 48, An uncorrectable double bit error", 48, GPU, ""),
    ],
)
def test_a_line_is_read(line: str, code: int, pci: str, unit: str) -> None:
    found = parse(line)
    assert found is not None
    assert (found.code, found.pci, found.unit) == (code, pci, unit)


@pytest.mark.parametrize(
    "line",
    [
        "r8169 0000:02:00.0 eth0: RTL8168h/8111h, 00:e0:4c:68:00:01, XID 641, IRQ 139",
        "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.124.06",
        "NVRM: Xid (PCI:garbage): 79",
        "",
    ],
)
def test_what_is_no_xid_is_left_alone(line: str) -> None:
    assert parse(line) is None


def test_a_double_bit_error_alone_wants_a_reset() -> None:
    assert judged(event(48)) == [(48, "fail", "reboot")]


def test_a_double_bit_error_takes_the_remapping_beside_it_as_its_cure() -> None:
    verdict = only(event(48), event(63, 1002), event(171, 1001))
    assert verdict.advice.startswith("drain the node and reset the GPU: the bad row is remapped then")
    assert [line.code for line in verdict.lines] == [48, 171, 63]


def test_a_double_bit_error_whose_remapping_failed_takes_the_gpu_out_of_service() -> None:
    verdict = only(event(48), event(64, 1002))
    assert (verdict.clear, verdict.advice.split(":")[0]) == (ClearRule.ACKNOWLEDGED, "take the GPU out of service")


def test_a_remapping_far_from_the_double_bit_error_speaks_for_itself() -> None:
    assert judged(event(48), event(63, 1061)) == [(48, "fail", "reboot"), (63, "warn", "reboot")]


def test_a_contained_error_leaves_the_gpu_in_use() -> None:
    verdict = only(event(94), event(63, 1003))
    assert (verdict.code, verdict.status) == (94, Status.WARN)
    assert verdict.advice.startswith("restart the job (this GPU may be used)")


def test_a_contained_error_beside_an_uncontained_one_is_its_echo() -> None:
    assert judged(event(94), event(95, 1001)) == [(95, "fail", "reboot")]


@pytest.mark.parametrize("code", [43, 45])
def test_teardown_alone_is_a_program_that_was_ended(code: int) -> None:
    verdict = only(event(code))
    assert verdict.status is Status.OK
    assert verdict.summary.endswith("no other XID near it: a program was ended")


@pytest.mark.parametrize("code", [43, 45])
def test_teardown_beside_another_code_has_no_word_of_its_own(code: int) -> None:
    assert judged(event(79), event(code, 1030)) == [(79, "fail", "reboot")]


def test_teardown_long_after_another_code_is_a_program_again() -> None:
    assert judged(event(79), event(45, 1061)) == [(79, "fail", "reboot"), (45, "ok", "quiet")]


@pytest.mark.parametrize("code", [13, 31])
class TestProgramFaults:
    def test_one_is_the_programs(self, code: int) -> None:
        assert judged(event(code, unit="4 2 1")) == [(code, "ok", "quiet")]

    def test_a_burst_on_one_unit_is_one(self, code: int) -> None:
        burst = [event(code, 1000 + second, unit="4 2 1") for second in range(9)]
        assert judged(*burst) == [(code, "ok", "quiet")]

    def test_twice_in_a_day_on_one_unit_is_hardware(self, code: int) -> None:
        verdict = only(event(code, 1000, unit="4 2 1"), event(code, 87_000, unit="4 2 1"))
        assert verdict.status is Status.WARN
        assert verdict.summary == f"XID {code} 2 times in 24 h on unit 4 2 1: hardware suspected"

    def test_twice_in_more_than_a_day_is_not(self, code: int) -> None:
        assert judged(event(code, 1000, unit="4 2 1"), event(code, 87_500, unit="4 2 1")) == [(code, "ok", "quiet")]

    def test_twice_on_different_units_is_not(self, code: int) -> None:
        assert judged(event(code, 1000, unit="4 2 1"), event(code, 5000, unit="0 2 1")) == [(code, "ok", "quiet")]

    def test_twice_with_no_unit_named_is_not(self, code: int) -> None:
        assert judged(event(code, 1000), event(code, 5000)) == [(code, "ok", "quiet")]

    def test_on_several_gpus_at_once_is_a_program_whatever_the_unit(self, code: int) -> None:
        mine = (event(code, 1000, unit="4 2 1"), event(code, 5000, unit="4 2 1"))
        other = event(code, 5030, pci="0000:5d:00.0")
        assert judged(*mine, elsewhere=(other,)) == [(code, "ok", "quiet")]


@pytest.mark.parametrize(
    ("text", "action", "status"),
    [
        ("GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", "gpu reset", "fail"),
        ("GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", "node reboot", "fail"),
        ("GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)", "drain p2p", "fail"),
        ("GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)", "drain and reset", "fail"),
        ("GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", "none", "ok"),
    ],
)
def test_154_is_followed(text: str, action: str, status: str) -> None:
    line = f"NVRM: Xid (PCI:0000:3b:00): 154, {text}"
    assert recovery_action(line) == action
    assert str(only(event(154, text=line)).status) == status


def test_154_that_was_taken_back_is_over() -> None:
    asked = event(154, 1000, "154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)")
    done = event(154, 2000, "154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)")
    assert judged(asked, done) == [(154, "ok", "quiet")]


def test_154_with_an_action_nobody_knows_stays_a_failure() -> None:
    verdict = only(event(154, text="154, GPU recovery action changed from 0x0 (None) to 0x9 (Polish)"))
    assert verdict.summary == "XID 154: the GPU asks for a recovery action that muster does not know"
    assert verdict.status is Status.FAIL


def test_nvlink5_lines_say_themselves_whether_the_link_survived() -> None:
    assert judged(event(149, text="149, NETIR_LINK_EVT Fatal XC0 i0 Link 08")) == [(149, "fail", "reboot")]
    assert judged(event(145, text="145, RLW_REMAP Nonfatal XC0 i0 Link 08")) == [(145, "warn", "quiet")]
    mixed = (event(145, text="145, RLW_REMAP Nonfatal"), event(145, 1001, "145, RLW_RXPIPE Fatal"))
    assert judged(*mixed) == [(145, "fail", "reboot")]


def test_a_code_that_a_reboot_did_not_cure_goes_to_inspection() -> None:
    verdict = only(event(79, 500, boot="boot-0"), event(79, 700, boot="boot-1"), event(79, 1000))
    assert verdict.summary.endswith("came back after 2 reboots")
    assert verdict.advice.startswith("a reboot did not cure it: have the hardware inspected")
    assert verdict.clear is ClearRule.ACKNOWLEDGED


def test_a_code_of_an_earlier_boot_that_did_not_come_back_is_over() -> None:
    assert judge([event(79, 500, boot="boot-1")], BOOT) == []


def test_another_code_after_the_reboot_does_not_escalate() -> None:
    assert judged(event(79, 500, boot="boot-1"), event(119, 1000)) == [(119, "fail", "reboot")]


def test_a_programs_fault_after_a_reboot_does_not_escalate() -> None:
    assert judged(event(13, 500, boot="boot-1"), event(13, 1000)) == [(13, "ok", "quiet")]


@pytest.mark.parametrize(
    ("times", "count"),
    [((1000.0,), 1), ((1000.0, 1009.0, 1018.0), 1), ((1000.0, 1011.0), 2), ((2000.0, 1000.0), 2)],
)
def test_bursts_count_once(times: tuple[float, ...], count: int) -> None:
    assert occurrences([event(48, at) for at in times]) == count


def test_worst_comes_first() -> None:
    assert [code for code, _, _ in judged(event(92), event(13, 3000), event(119, 6000))] == [119, 92, 13]


def test_a_site_that_overrides_a_code_has_the_last_word() -> None:
    (verdict,) = judge([event(45), event(79, 1001)], BOOT, {45: Override(status="warn"), 79: Override(status="ok")})[:1]
    assert (verdict.code, verdict.status) == (45, Status.WARN)


def test_a_code_newer_than_the_catalogue_warns() -> None:
    assert judged(event(999)) == [(999, "warn", "quiet")]
