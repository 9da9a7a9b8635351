"""Hosts in network namespaces on one bridge, each link shaped both ways: a real network whose faults are known."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from checks.pairs.launch import Place

# Low enough that two busy cores are not the limit; what a link carries then is exact to a few per cent.
RATE_MBIT = 20.0
_BURST = "16kb"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def tc(space: str, *arguments: str) -> None:
    subprocess.run(["ip", "netns", "exec", space, "tc", *arguments], check=True, capture_output=True)


@dataclass(slots=True)
class Lab:
    """count hosts PREFIX1.. with addresses 10.78.0.i; the bridge is in PREFIXsw. Nothing touches the root namespace."""

    prefix: str
    count: int

    def host(self, number: int) -> str:
        return f"{self.prefix}{number}"

    def places(self) -> list[Place]:
        return [
            Place(
                node=self.host(i),
                address=f"10.78.0.{i}",
                prefix=("ip", "netns", "exec", self.host(i)),
                interface="eth0",
            )
            for i in range(1, self.count + 1)
        ]

    def up(self) -> None:
        switch = f"{self.prefix}sw"
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for i in range(1, self.count + 1):
            host = self.host(i)
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            ip("link", "add", "eth0", "netns", host, "type", "veth", "peer", "name", f"sw{i}", "netns", switch)
            ip("-n", host, "addr", "add", f"10.78.0.{i}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", switch, "link", "set", f"sw{i}", "master", "br0")
            ip("-n", switch, "link", "set", f"sw{i}", "up")
            self.shape(i)

    def down(self) -> None:
        for space in (*(self.host(i) for i in range(1, self.count + 1)), f"{self.prefix}sw"):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)

    def shape(self, number: int, transmit: float = RATE_MBIT, receive: float = RATE_MBIT) -> None:
        """Mbit/s that the host can send and receive."""
        sides = ((self.host(number), "eth0", transmit), (f"{self.prefix}sw", f"sw{number}", receive))
        for space, device, rate in sides:
            how = ("tbf", "rate", f"{rate}mbit", "burst", _BURST, "latency", "40ms")
            tc(space, "qdisc", "replace", "dev", device, "root", *how)

    def slow_pair(self, a: int, b: int, rate: float) -> None:
        """Traffic between these two is held to `rate` Mbit/s each way, all other to the usual."""
        for here, there in ((a, b), (b, a)):
            host = self.host(here)
            tc(host, "qdisc", "del", "dev", "eth0", "root")
            tc(host, "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb", "default", "10")
            parent = ("parent", "1:", "classid")
            tc(host, "class", "add", "dev", "eth0", *parent, "1:10", "htb", "rate", f"{RATE_MBIT}mbit", "burst", _BURST)
            tc(host, "class", "add", "dev", "eth0", *parent, "1:20", "htb", "rate", f"{rate}mbit", "burst", _BURST)
            match = ("u32", "match", "ip", "dst", f"10.78.0.{there}/32", "flowid", "1:20")
            tc(host, "filter", "add", "dev", "eth0", "parent", "1:", "protocol", "ip", "prio", "1", *match)

    def cut_pair(self, a: int, b: int) -> None:
        """Nothing goes between these two any more; both reach all others."""
        for here, there in ((a, b), (b, a)):
            host = self.host(here)
            ip("-n", host, "route", "add", "blackhole", f"10.78.0.{there}/32")


@contextmanager
def lab(prefix: str, count: int) -> Iterator[Lab]:
    """The network, gone again at the end."""
    made = Lab(prefix, count)
    made.down()  # what a killed run left behind
    try:
        made.up()
        yield made
    finally:
        made.down()
