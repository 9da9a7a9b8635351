"""Which peers a rank's connections have lost: the kernel knows, long before any time limit of a collective."""

import ipaddress
import struct
from collections.abc import Iterable
from pathlib import Path

# States of /proc/net/tcp.
_ESTABLISHED, _SYN_SENT = 1, 2
# Retransmissions of one segment: two may be a congested link, the third comes after more than a second without answer.
_LOST_AFTER = 3


def lost_peers(lines: Iterable[str]) -> dict[str, int]:
    """Peer address -> connections to it on which data or a SYN is sent again and again, from lines of /proc/net/tcp."""
    found: dict[str, int] = {}
    for line in lines:
        fields = line.split()
        if len(fields) < 10 or ":" not in fields[1]:
            continue
        state, timer, retransmits = int(fields[3], 16), fields[5].split(":")[0], int(fields[6], 16)
        if state in (_ESTABLISHED, _SYN_SENT) and timer == "01" and retransmits >= _LOST_AFTER:
            peer = address(fields[2])
            found[peer] = found.get(peer, 0) + 1
    return found


def address(field: str) -> str:
    """The address of a field such as 0200A8C0:01BB, which holds words in the byte order of the machine."""
    text = field.split(":")[0]
    raw = b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def local_addresses(lines: Iterable[str]) -> set[str]:
    """The addresses that connections of this host begin at."""
    return {address(fields[1]) for line in lines if len(fields := line.split()) > 9 and ":" in fields[1]}


def tables(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Lines of both tables in the network namespace of a process."""
    lines: list[str] = []
    for name in ("tcp", "tcp6"):
        try:
            lines += (proc / str(pid) / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
    return lines


def cut_off(lost: dict[str, dict[str, int]], addresses: dict[str, set[str]]) -> list[str]:
    """The hosts to look at, most accused first. lost: host -> lost peers of its ranks. addresses: host -> its own.

    Of two hosts that have lost each other both are named; one that several have lost stands first. A peer that no
    supervisor speaks for is named by its address.
    """
    names = {one: host for host, own in addresses.items() for one in own if not one.startswith("127.")}
    votes: dict[str, int] = {}
    for host, peers in lost.items():
        for peer in peers:
            if not peer.startswith("127.") and (accused := names.get(peer, peer)) != host:
                votes[accused] = votes.get(accused, 0) + 1
    return sorted(votes, key=lambda host: (-votes[host], host))
