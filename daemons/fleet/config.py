"""What the fleet daemon can be told; the keys of the way from a node to it stand in the same table."""

from collections.abc import Mapping

from daemons.engines.slurm_text import expand
from daemons.fleet.policy import PolicyConfig
from daemons.incidents.correlation import Topology
from daemons.node.config import FleetLinkConfig
from daemons.section import Positive, Section


class TopologyConfig(Section, frozen=True, kw_only=True):
    """[fleet.topology] leaves, racks: name -> its nodes, as host lists (`leaf1 = "n[1-16],n20"`).

    Without leaves, Slurm's own topology is used where the engine is Slurm.
    """

    leaves: Mapping[str, str] = {}
    racks: Mapping[str, str] = {}

    def topology(self, leaves: Mapping[str, tuple[str, ...]]) -> Topology:
        """As findings are joined by it. leaves: what the engine knows, used where nothing is configured."""
        by_leaf = {name: tuple(expand(nodes)) for name, nodes in self.leaves.items()} or leaves
        return Topology(
            leaves={node: leaf for leaf, nodes in by_leaf.items() for node in nodes},
            racks={node: rack for rack, nodes in self.racks.items() for node in expand(nodes)},
        )


class FleetConfig(FleetLinkConfig, frozen=True, kw_only=True):
    """[fleet] listen: host:port of intake and API; port 0 takes a free one. state: directory of the daemon.

    store: SQLAlchemy address; by default SQLite in the state directory. One with a password comes as
    MUSTER_FLEET_DATABASE or credential fleet_database. certificate, key: files; with them it speaks TLS.
    keep_days: how long changes, the audit log and canaries stay in the store. cycle_seconds: between two looks at the
    scheduler.
    """

    listen: str = "127.0.0.1:9809"
    state: str = ""
    store: str = ""
    certificate: str = ""
    key: str = ""
    keep_days: Positive = 90.0
    cycle_seconds: Positive = 15.0
    topology: TopologyConfig = TopologyConfig()
    policy: PolicyConfig = PolicyConfig()
