"""The alerts of Prometheus: for sites that route through Alertmanager.

muster itself tells people of what it finds, with evidence and advice. These rules watch what it cannot say of itself
(an agent that is gone, a queue that does not drain), what only a history shows (error rates, a disk that fills), and
pass on what is open, for one place where everything arrives.
"""

import thresholds as limit
from rules import Alert, Proof

_NODE = 'job="muster-node",instance="n1:9808"'
_IS = {"job": "muster-node", "instance": "n1:9808"}
_GPU = f'{_NODE},component="gpu"'
_PORT = f'{_NODE},component="ib/mlx5_0/1"'
_MOUNT = f'{_NODE},component="mount/data"'


def _steady(series: str, sick: str, well: str, **more: object) -> Proof:
    """Proof by one series that has one value while the fault lasts and another when it is over."""
    labels = more.pop("labels", _IS)
    assert isinstance(labels, dict)
    return Proof(
        sick={series: (f"{sick}x60", f"{well}x60")},
        well={series: f"{well}x60"},
        labels=labels,
        **more,  # type: ignore[arg-type]  # the minutes
    )


_AGENT = (
    Alert(
        name="MusterAgentDown",
        expr='up{job="muster-node"} == 0',
        lasting=limit.AGENT_DOWN,
        severity="critical",
        summary="{{ $labels.instance }}: the node agent does not answer",
        advice="See whether the node is up; then `systemctl status muster-node` on it.",
        proof=_steady(f"up{{{_NODE}}}", "0", "1", silent=2),
    ),
    Alert(
        name="MusterNoAgents",
        expr='absent(up{job="muster-node"})',
        lasting=limit.NO_AGENTS,
        severity="warning",
        summary="Prometheus scrapes no node agent at all: nothing is watched",
        advice="Give the scrape job of the agents the name muster-node, and see its targets.",
        proof=Proof(
            sick={'up{job="other"}': ("1x60", "1x60"), f"up{{{_NODE}}}": ("_x60", "1x60")},
            well={f"up{{{_NODE}}}": "1x60"},
            labels={"job": "muster-node"},
            silent=9,
        ),
    ),
    Alert(
        name="MusterAgentRestarts",
        expr=f"changes(muster_start_time_seconds[1h]) > {limit.RESTARTS_AN_HOUR}",
        lasting="0m",
        severity="warning",
        summary="{{ $labels.instance }}: the agent started {{ $value }} times within an hour",
        advice="`journalctl -u muster-node` says what ended it each time.",
        proof=Proof(
            sick={f"muster_start_time_seconds{{{_NODE}}}": ("0+600x60", "36000x90")},
            well={f"muster_start_time_seconds{{{_NODE}}}": "600x60"},
            labels=_IS,
            value="55",
            silent=3,
            resolved=145,
        ),
    ),
    Alert(
        name="MusterCheckStale",
        expr=f"check:muster_check_age:seconds > {limit.STALE_INTERVALS} * muster_check_interval_seconds"
        f" + {limit.STALE_SLACK_SECONDS}",
        lasting="5m",
        severity="warning",
        summary="{{ $labels.instance }}: check {{ $labels.check }} has not looked for {{ $value | humanizeDuration }}",
        advice="`muster scan --check {{ $labels.check }}` on the node says why it cannot.",
        proof=Proof(
            sick={
                f'muster_check_last_success_timestamp_seconds{{{_NODE},check="ecc"}}': ("_x21 60+60x39", "3660+60x60"),
                f'muster_check_interval_seconds{{{_NODE},check="ecc"}}': ("60x60", "60x60"),
                f"muster_start_time_seconds{{{_NODE}}}": ("0x60", "0x60"),
            },
            well={
                f'muster_check_last_success_timestamp_seconds{{{_NODE},check="ecc"}}': "0+60x60",
                f'muster_check_interval_seconds{{{_NODE},check="ecc"}}': "60x60",
                f"muster_start_time_seconds{{{_NODE}}}": "0x60",
            },
            labels={**_IS, "check": "ecc"},
            value="20m 0s",
            silent=9,
        ),
    ),
    Alert(
        name="MusterCheckUnknown",
        expr='muster_check_status{status="unknown"} == 1',
        lasting=limit.UNKNOWN,
        severity="warning",
        summary="{{ $labels.instance }}: check {{ $labels.check }} cannot tell whether its part is well",
        advice="`muster scan --check {{ $labels.check }}` on the node says what is missing.",
        proof=_steady(
            f'muster_check_status{{{_NODE},check="ecc",status="unknown"}}',
            "1",
            "0",
            silent=14,
            labels={**_IS, "check": "ecc", "status": "unknown"},
        ),
    ),
    Alert(
        name="MusterDoorHung",
        expr=f"muster_door_hung_seconds > {limit.DOOR_HUNG_SECONDS}",
        lasting="0m",
        severity="critical",
        summary="{{ $labels.instance }}: a probe has hung in {{ $labels.door }} for {{ $value | humanizeDuration }}",
        advice="The driver or the file server behind it does not answer, and no process in it can be killed: drain.",
        proof=_steady(
            f'muster_door_hung_seconds{{{_NODE},door="nvml"}}',
            "0+60",
            "_",
            value="55m 0s",
            silent=5,
            labels={**_IS, "door": "nvml"},
        ),
    ),
    Alert(
        name="MusterLedgerDegraded",
        expr="muster_ledger_degraded == 1",
        lasting=limit.LEDGER_DEGRADED,
        severity="warning",
        summary="{{ $labels.instance }}: findings are kept in memory alone, the ledger cannot be written",
        advice="See room and mode of /var/lib/muster; `muster scan --check space`.",
        proof=_steady(f"muster_ledger_degraded{{{_NODE}}}", "1", "0", silent=4),
    ),
    Alert(
        name="MusterAlertsUndelivered",
        expr=f"muster_alerts_oldest_seconds > {limit.ALERT_WAITS_SECONDS}",
        lasting="0m",
        severity="critical",
        summary="{{ $labels.instance }}: a message to people has waited for {{ $value | humanizeDuration }}",
        advice="`muster alerts test` says what the channel answers.",
        proof=_steady(f"muster_alerts_oldest_seconds{{{_NODE}}}", "0+60", "0", value="55m 0s", silent=15),
    ),
    Alert(
        name="MusterFleetAway",
        expr=f"time() - muster_fleet_link_last_success_timestamp_seconds > {limit.FLEET_AWAY_SECONDS}",
        lasting="0m",
        severity="warning",
        summary="{{ $labels.instance }}: the fleet has taken nothing of this node for {{ $value | humanizeDuration }}",
        advice="Nothing is lost, the node keeps it. See muster-fleet.service, the network, the token.",
        proof=Proof(
            sick={f"muster_fleet_link_last_success_timestamp_seconds{{{_NODE}}}": ("60x60", "3660+60x60")},
            well={f"muster_fleet_link_last_success_timestamp_seconds{{{_NODE}}}": "0+60x60"},
            labels=_IS,
            value="54m 0s",
            silent=10,
        ),
    ),
)

_FOUND = (
    Alert(
        name="MusterFault",
        expr='muster_findings_open{status="fail"} > 0',
        lasting="0m",
        severity="critical",
        summary="{{ $labels.instance }}: {{ $labels.check }} finds {{ $labels.cause }}",
        advice="`muster incidents list` on the node, with evidence and what to do.",
        proof=_steady(
            f'muster_findings_open{{{_NODE},check="xid",status="fail",cause="gpu.lost"}}',
            "1",
            "_",
            labels={**_IS, "check": "xid", "status": "fail", "cause": "gpu.lost"},
            silent=-1,
        ),
    ),
    Alert(
        name="MusterWarningStays",
        expr='muster_findings_open{status="warn"} > 0',
        lasting=limit.WARNING_OPEN,
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.check }} has warned of {{ $labels.cause }} for a day",
        advice="`muster incidents list` on the node, with evidence and what to do.",
        proof=Proof(
            sick={
                f'muster_findings_open{{{_NODE},check="power",status="warn",cause="gpu.thermal_power"}}': (
                    "1x50",
                    "_x10",
                )
            },
            well={
                f'muster_findings_open{{{_NODE},check="power",status="warn",cause="gpu.thermal_power"}}': "1x20 _x40"
            },
            labels={**_IS, "check": "power", "status": "warn", "cause": "gpu.thermal_power"},
            step=30,
            fires=1470,
            silent=1410,
            resolved=1680,
        ),
    ),
    Alert(
        name="MusterIncidentUnattended",
        expr='muster_incidents_open{severity="fail"} > 0',
        lasting=limit.INCIDENT_OPEN,
        severity="warning",
        summary="{{ $labels.instance }}: an incident has been open for hours",
        advice="`muster incidents list`; acknowledge, cure or resolve it.",
        proof=Proof(
            sick={f'muster_incidents_open{{{_NODE},severity="fail"}}': ("1x60", "_x12")},
            well={f'muster_incidents_open{{{_NODE},severity="fail"}}': "1x30 _x30"},
            labels={**_IS, "severity": "warning"},
            step=5,
            fires=255,
            silent=235,
            resolved=330,
        ),
    ),
)

_PARTS = (
    Alert(
        name="MusterGpuMissing",
        expr="muster_gpus_visible < muster_gpus_expected",
        lasting=limit.GPU_MISSING,
        severity="critical",
        summary="{{ $labels.instance }}: {{ $value }} GPUs answer, fewer than this node should have",
        advice="`muster scan --check gpu_count` names the one that is gone, with its serial; drain, then power-cycle.",
        proof=Proof(
            sick={
                f"muster_gpus_visible{{{_GPU}}}": ("7x60", "8x60"),
                f"muster_gpus_expected{{{_GPU}}}": ("8x60", "8x60"),
            },
            well={f"muster_gpus_visible{{{_GPU}}}": "8x60", f"muster_gpus_expected{{{_GPU}}}": "8x60"},
            labels={**_IS, "component": "gpu"},
            value="7",
            silent=1,
        ),
    ),
    Alert(
        name="MusterXidStorm",
        expr=f"increase(muster_xids_total[1h]) > {limit.XIDS_AN_HOUR}",
        lasting="0m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.component }} logged {{ $value | humanize }} XIDs within an hour",
        advice="`muster incidents list` names the codes; a job that faults again and again is the usual reason.",
        proof=Proof(
            sick={f'muster_xids_total{{{_NODE},component="gpu/3"}}': ("0+1x60", "60x90")},
            well={f'muster_xids_total{{{_NODE},component="gpu/3"}}': "0x30 2x30"},
            labels={**_IS, "component": "gpu/3"},
            value="55",
            silent=10,
            resolved=145,
        ),
    ),
    Alert(
        name="MusterInfinibandErrors",
        expr=f"port:muster_link_errors:increase1h > {limit.LINK_ERRORS_AN_HOUR}",
        lasting="0m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.component }}: {{ $labels.counter }} rose by"
        " {{ $value | humanize }} within an hour",
        advice="Clean or change cable and transceiver; if it stays, the port at the other end.",
        proof=Proof(
            sick={f"muster_infiniband_symbol_error_total{{{_PORT}}}": ("0+1x120", "120x90")},
            well={f"muster_infiniband_symbol_error_total{{{_PORT}}}": "5x30 7x30"},
            labels={**_IS, "component": "ib/mlx5_0/1", "counter": "symbol_error"},
            value="60",
            silent=8,
            fires=100,
            resolved=205,
        ),
    ),
    Alert(
        name="MusterInfinibandRetries",
        expr=f"port:muster_transport_retries:increase1h > {limit.RETRIES_AN_HOUR}",
        lasting="0m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.component }}: {{ $labels.counter }} rose by"
        " {{ $value | humanize }} within an hour",
        advice="Packets are lost on the way: a bad link from leaf to spine, or RoCE that is not lossless.",
        proof=Proof(
            sick={f"muster_infiniband_packet_seq_err_total{{{_PORT}}}": ("0+60x120", "7200x90")},
            well={f"muster_infiniband_packet_seq_err_total{{{_PORT}}}": "0+1x60"},
            labels={**_IS, "component": "ib/mlx5_0/1", "counter": "packet_seq_err"},
            value="3.6k",
            silent=10,
            fires=100,
            resolved=205,
        ),
    ),
    Alert(
        name="MusterInfinibandPortDown",
        expr="muster_infiniband_port_active == 0",
        lasting=limit.PORT_DOWN,
        severity="critical",
        summary="{{ $labels.instance }}: {{ $labels.component }} is not active",
        advice="`muster scan --check ib_port`; cable, switch port, subnet manager, in this order.",
        proof=_steady(
            f"muster_infiniband_port_active{{{_PORT}}}",
            "0",
            "1",
            labels={**_IS, "component": "ib/mlx5_0/1"},
            silent=4,
        ),
    ),
    Alert(
        name="MusterInfinibandPortFlaps",
        expr=f"muster_infiniband_port_flaps >= {limit.PORT_FLAPS_A_DAY}",
        lasting="0m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.component }} went away {{ $value }} times within a day",
        advice="Seat or change cable and transceiver; a job on it stalls at every flap.",
        proof=_steady(
            f"muster_infiniband_port_flaps{{{_PORT}}}",
            "0+1",
            "2",
            labels={**_IS, "component": "ib/mlx5_0/1"},
            value="55",
            silent=2,
        ),
    ),
    Alert(
        name="MusterEthernetErrors",
        expr=f"rate(muster_ethernet_receive_errors_total[10m]) > {limit.ETHERNET_ERRORS_A_SECOND}",
        lasting="5m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.component }} takes {{ $value | humanize }} damaged frames a second",
        advice="`muster scan --check ethernet`; cable, transceiver, switch port.",
        proof=Proof(
            sick={f'muster_ethernet_receive_errors_total{{{_NODE},component="net/eno1"}}': ("0+120x60", "7200x60")},
            well={f'muster_ethernet_receive_errors_total{{{_NODE},component="net/eno1"}}': "0+6x60"},
            labels={**_IS, "component": "net/eno1"},
            value="2",
            silent=5,
        ),
    ),
    Alert(
        name="MusterDiskFullSoon",
        expr="predict_linear(muster_filesystem_available_bytes[6h], "
        f"{limit.DISK_FULL_WITHIN_SECONDS}) < 0 and mount:muster_filesystem_free:ratio < {limit.DISK_FREE_RATIO}",
        lasting="15m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.component }} will be full within hours at this rate",
        advice="Old checkpoints are the usual reason; a job that cannot write its checkpoint is lost.",
        proof=Proof(
            sick={
                f"muster_filesystem_available_bytes{{{_MOUNT}}}": ("240-1x60", "900x400"),
                f"muster_filesystem_size_bytes{{{_MOUNT}}}": ("1000x60", "1000x400"),
            },
            well={
                f"muster_filesystem_available_bytes{{{_MOUNT}}}": "900-1x60",
                f"muster_filesystem_size_bytes{{{_MOUNT}}}": "1000x60",
            },
            labels={**_IS, "component": "mount/data"},
            silent=14,
        ),
    ),
    Alert(
        name="MusterInodesLow",
        expr=f"mount:muster_inodes_free:ratio < {limit.INODES_FREE_RATIO}",
        lasting="15m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $labels.component }} has {{ $value | humanizePercentage }} files left",
        advice="Many small files are the usual reason: shards of data sets, caches of compilers.",
        proof=Proof(
            sick={
                f"muster_filesystem_available_inodes{{{_MOUNT}}}": ("10x60", "500x60"),
                f"muster_filesystem_inodes{{{_MOUNT}}}": ("1000x60", "1000x60"),
            },
            # A file system without a limit says 0 of 0.
            well={
                f"muster_filesystem_available_inodes{{{_MOUNT}}}": "0x60",
                f"muster_filesystem_inodes{{{_MOUNT}}}": "0x60",
            },
            labels={**_IS, "component": "mount/data"},
            value="1%",
            silent=14,
        ),
    ),
    Alert(
        name="MusterMemoryLow",
        expr=f"muster_memory_available_bytes / muster_memory_size_bytes < {limit.MEMORY_FREE_RATIO}",
        lasting="10m",
        severity="warning",
        summary="{{ $labels.instance }}: {{ $value | humanizePercentage }} of the memory can be had",
        advice="The kernel kills a process next, often a rank: see who holds it with `ps --sort=-rss`.",
        proof=Proof(
            sick={
                f'muster_memory_available_bytes{{{_NODE},component="memory"}}': ("10x60", "500x60"),
                f'muster_memory_size_bytes{{{_NODE},component="memory"}}': ("1000x60", "1000x60"),
            },
            well={
                f'muster_memory_available_bytes{{{_NODE},component="memory"}}': "30x60",
                f'muster_memory_size_bytes{{{_NODE},component="memory"}}': "1000x60",
            },
            labels={**_IS, "component": "memory"},
            value="1%",
            silent=9,
        ),
    ),
)

GROUPS = {"muster agents": _AGENT, "muster findings": _FOUND, "muster parts": _PARTS}
ALERTS = tuple(alert for group in GROUPS.values() for alert in group)
