"""Traffic between two workers through torch.distributed: gloo between CPUs, NCCL between GPUs.

Every pair meets in a process group of its own with two ranks, so that a partner that hangs or cannot be reached costs
this pair its time limit and nobody else anything.
"""

import datetime
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch._C._distributed_c10d import ProcessGroupGloo, TCPStore

# Values of the window are taken in so many slices, to see pauses and flaps that a mean would hide.
SLICES = 10
# Messages on the way at a time: enough to keep the wire busy while a process waits for its turn on the CPU.
_IN_FLIGHT = 8
_GOES_ON, _ENDS = 1, 2

_stores: dict[str, TCPStore] = {}


class Group(Protocol):
    """What torch's process groups offer beneath torch.distributed."""

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Any: ...
    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Any: ...


def warm_up() -> None:
    """Load what the first test would otherwise pay for."""
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")


def open_store(pair: str, address: str, deadline: float) -> int:
    """A store for the two to meet in, on a port of the kernel's choice."""
    store = TCPStore(
        address,
        0,
        is_master=True,
        world_size=2,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=deadline),
    )
    _stores[pair] = store
    return int(store.port)


def measure(order: Mapping[str, Any]) -> dict[str, Any]:
    """Both directions, one after the other.

    Answers for the direction in which this side received: gigabytes (GB/s, whole window), slices (GB/s each), damaged
    (messages whose content was wrong).
    """
    limit = datetime.timedelta(seconds=order["deadline"])
    pair, rank, device = order["pair"], order["rank"], order["device"]
    store = _stores.pop(pair, None)
    if store is None:
        store = TCPStore(order["address"], order["port"], is_master=False, wait_for_workers=False, timeout=limit)
    if device >= 0:
        torch.cuda.set_device(device)
    group = _group(store, rank, limit, device)
    found: dict[str, Any] = {}
    for sender in (0, 1):
        if rank == sender:
            _send(group, 1 - rank, order, device)
        else:
            found = _receive(group, 1 - rank, order, device)
    return found


def _group(store: TCPStore, rank: int, limit: datetime.timedelta, device: int) -> Group:
    """The two of them, outside torch's global state: that counts groups, and after one failure differently on each."""
    if device >= 0:
        from torch._C._distributed_c10d import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        options._timeout = limit
        return cast(Group, ProcessGroupNCCL(store, rank, 2, options))
    return cast(Group, ProcessGroupGloo(store, rank, 2, timeout=limit))


def _buffers(order: Mapping[str, Any], device: int) -> list[torch.Tensor]:
    place = f"cuda:{device}" if device >= 0 else "cpu"
    return [torch.full((order["message"],), 7, dtype=torch.uint8, device=place) for _ in range(_IN_FLIGHT)]


def _send(group: Group, partner: int, order: Mapping[str, Any], device: int) -> None:
    """Messages until the window is over; the last one says that it is the last."""
    buffers = _buffers(order, device)
    started, number = time.monotonic(), 0
    under_way: list[Any] = [None] * _IN_FLIGHT
    while True:
        slot = number % _IN_FLIGHT
        if under_way[slot] is not None:
            _wait(under_way[slot], device)
        last = time.monotonic() - started >= order["window"] and number >= 2 * _IN_FLIGHT
        buffers[slot][0] = _ENDS if last else _GOES_ON
        under_way[slot] = group.send([buffers[slot]], partner, 0)
        number += 1
        if last:
            break
    # The partner has receives posted for as many more: they are served, and not counted.
    for _ in range(_IN_FLIGHT - 1):
        slot = number % _IN_FLIGHT
        _wait(under_way[slot], device)
        under_way[slot] = group.send([buffers[slot]], partner, 0)
        number += 1
    for slot in range(number, number + _IN_FLIGHT):
        _wait(under_way[slot % _IN_FLIGHT], device)


def _receive(group: Group, partner: int, order: Mapping[str, Any], device: int) -> dict[str, Any]:
    """Bytes by arrival, from the first message on: the start of the connection is not part of the rate."""
    buffers = _buffers(order, device)
    arrivals: list[float] = []
    damaged = number = 0
    for buffer in buffers:
        buffer[-1] = 0
    under_way = [group.recv([buffer], partner, 0) for buffer in buffers]
    while True:
        slot = number % _IN_FLIGHT
        _wait(under_way[slot], device)
        arrivals.append(time.monotonic())
        buffer = buffers[slot]
        damaged += int(buffer[-1]) != 7
        number += 1
        if int(buffer[0]) == _ENDS:
            for rest in range(number, number + _IN_FLIGHT - 1):
                _wait(under_way[rest % _IN_FLIGHT], device)
            break
        buffer[-1] = 0
        under_way[slot] = group.recv([buffer], partner, 0)
    return {"damaged": damaged, **rates(arrivals, order["message"])}


def rates(arrivals: list[float], size: int) -> dict[str, Any]:
    """GB/s over all of it (gigabytes), in each of SLICES equal parts, and `steady`: the median over a sliding quarter.

    A receiver that has to wait for the CPU stalls and then catches up; that moves the median little, while a slow
    link moves all alike. arrivals: seconds; size: bytes of each message.
    """
    span = arrivals[-1] - arrivals[0]
    if len(arrivals) < 2 or span <= 0:
        return {"gigabytes": 0.0, "steady": 0.0, "slices": []}
    parts = [0] * SLICES
    for at in arrivals[1:]:
        parts[min(int((at - arrivals[0]) / span * SLICES), SLICES - 1)] += size
    quarter = max(1, len(arrivals) // 4)
    spans = [late - early for early, late in zip(arrivals, arrivals[quarter:], strict=False)]
    return {
        "gigabytes": (len(arrivals) - 1) * size / span / 1e9,
        "steady": quarter * size / max(statistics.median(spans), 1e-9) / 1e9,
        "slices": [part / (span / SLICES) / 1e9 for part in parts],
    }


def _wait(work: Any, device: int) -> None:
    work.wait()
    if device >= 0:
        torch.cuda.current_stream().synchronize()


# gloo connects on the interface of this name; the host name may resolve to another network.
if os.environ.get("MUSTER_PAIRS_INTERFACE"):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", os.environ["MUSTER_PAIRS_INTERFACE"])
    os.environ.setdefault("NCCL_SOCKET_IFNAME", os.environ["MUSTER_PAIRS_INTERFACE"])
