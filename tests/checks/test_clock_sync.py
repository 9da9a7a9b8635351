"""clock_sync: offset by chrony or the kernel, nobody keeping the clock, and answers that are none."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told

from checks.adjtimex import KernelClock, kernel_clock
from checks.host import Unreadable
from checks.system.clock_sync import CHECK

TRACKING = "0A000001,10.0.0.1,3,1699999990.123,{},-0.000001,0.00001,-1.2,0.001,0.02,0.0005,0.0003,64.2,{}\n"
FREE = KernelClock(synchronised=False, offset=0.0, max_error=16.0)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def chrony(node: Node, offset: str, leap: str = "Normal", code: int = 0) -> None:
    node.answer(commands={"chronyc -c -n tracking": [code, TRACKING.format(offset, leap), ""]})


def test_healthy(node: Node) -> None:
    found = look(CHECK, node)
    assert told(found) == [("clock", "ok", "", "0.012 ms fast by chrony")]
    assert found[0].values == {"clock_offset_seconds": 0.000012345}


@pytest.mark.parametrize(
    ("offset", "status", "said"),
    [
        ("-0.051", "warn", "the clock is 51.000 ms slow by chrony"),
        ("1.5", "fail", "the clock is 1500.000 ms fast by chrony"),
    ],
)
def test_offset(node: Node, offset: str, status: str, said: str) -> None:
    chrony(node, offset)
    assert told(look(CHECK, node)) == [("clock", status, "offset", said)]


def test_chrony_without_rtcsync_keeps_a_clock_that_the_kernel_calls_unsynchronised(node: Node) -> None:
    node.answer(clock=FREE)
    assert told(look(CHECK, node)) == [("clock", "ok", "", "0.012 ms fast by chrony")]


def test_another_daemon_is_seen_by_the_kernel_alone(node: Node) -> None:
    node.answer(commands={"chronyc -c -n tracking": [1, "506 Cannot talk to daemon\n", ""]})
    assert told(look(CHECK, node)) == [("clock", "ok", "", "0.004 ms fast by the kernel's time discipline")]


@pytest.mark.parametrize(
    ("offset", "leap", "code"), [("0.0", "Not synchronised", 0), ("N/A", "Normal", 0), ("0", "Normal", 1)]
)
def test_nobody_keeps_the_clock(node: Node, offset: str, leap: str, code: int) -> None:
    node.answer(clock=FREE)
    chrony(node, offset, leap, code)
    said = "nobody keeps the clock: the kernel says it is not synchronised"
    assert told(look(CHECK, node)) == [("clock", "warn", "unsynchronised", said)]


def test_virtual_machine_without_a_daemon_is_skipped_unless_one_is_demanded(node: Node) -> None:
    node.answer(clock=FREE)
    chrony(node, "0", code=1)
    node.write({"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n\n"})
    assert look(CHECK, node)[0].status == "skipped"
    assert look(CHECK, node, required=True)[0].status == "warn"


def test_no_answer_of_the_kernel_is_unknown(node: Node) -> None:
    node.answer(clock=None)
    with pytest.raises(Unreadable, match="adjtimex: not recorded"):
        look(CHECK, node)


def test_the_real_kernel_answers() -> None:
    clock = kernel_clock()
    assert abs(clock.offset) < 10
    assert 0 <= clock.max_error <= 16
