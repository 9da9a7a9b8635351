"""Which peers a rank's connections have lost: the kernel knows, long before any time limit of a collective."""

import ipaddress
import struct
from collections.abc import Iterable, Mapping
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


def addresses(lines: Iterable[str], column: int) -> set[str]:
    """The addresses of this host (column 1) or of its peers (column 2) among its connections, loopback left out."""
    rows = (line.split() for line in lines)
    found = {address(row[column]) for row in rows if len(row) > 9 and ":" in row[1] and row[3] in ("01", "02")}
    return {one for one in found if not one.startswith("127.") and one not in ("0.0.0.0", "::", "::1")}


def tables(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Lines of both tables in the network namespace of a process."""
    lines: list[str] = []
    for name in ("tcp", "tcp6"):
        try:
            lines += (proc / str(pid) / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
    return lines


def cut_off(
    lost: Mapping[str, Mapping[str, int]], addresses: Mapping[str, set[str]], peers: Mapping[str, set[str]]
) -> list[str]:
    """The hosts to look at, most accused first.

    lost: host -> lost peers of its ranks. addresses: host -> its own. peers: host -> all it is connected with.
    Of two hosts that have lost each other both are named; one that several have lost stands first, and so does one that
    has lost all of several others. A peer that no supervisor speaks for is named by its address.
    """
    names = {one: host for host, own in addresses.items() for one in own}
    votes: dict[str, int] = {}
    for host, found in lost.items():
        accused = {names.get(peer, peer) for peer in found if not peer.startswith("127.")} - {host}
        for other in accused:
            votes[other] = votes.get(other, 0) + 1
        if len(accused) > 1 and accused >= {names.get(peer, peer) for peer in peers.get(host, set())} - {host}:
            votes[host] = votes.get(host, 0) + len(accused)
    return sorted(votes, key=lambda host: (-votes[host], host))
