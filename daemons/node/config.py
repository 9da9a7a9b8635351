"""What the node agent can be told."""

from daemons.section import Section


class NodeConfig(Section, frozen=True, kw_only=True):
    """[node] name: as people know it (default: the host name). state: directory of the ledger.

    listen: host:port of the local API and /metrics; port 0 takes a free one.
    """

    name: str = ""
    state: str = ""
    listen: str = "127.0.0.1:9808"
