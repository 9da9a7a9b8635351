"""What the node agent can be told."""

from daemons.section import Count, Positive, Section


class NodeConfig(Section, frozen=True, kw_only=True):
    """[node] name: as people know it (default: the host name). state: directory of the ledger.

    listen: host:port of the local API and /metrics; port 0 takes a free one. keep_days, keep_changes: how long and
    how many changes of findings stay in the ledger once they were told.
    """

    name: str = ""
    state: str = ""
    listen: str = "127.0.0.1:9808"
    keep_days: Positive = 30.0
    keep_changes: Count = 100_000


class FleetLinkConfig(Section, frozen=True, kw_only=True):
    """[fleet] url: of the fleet daemon, such as https://fleet.example:9809; empty for none.

    The node's token comes as MUSTER_FLEET_TOKEN or credential fleet_token. ca: file of the certificates that the
    fleet's own is checked against (default: the system's). interval: seconds between signs of life.
    """

    url: str = ""
    ca: str = ""
    interval: Positive = 30.0
