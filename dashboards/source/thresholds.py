"""Every number of the alert rules: change one here, then `make dashboards`, then `promtool test rules`."""

# A scrape that fails for longer than a restart of the agent takes (RestartSec 2 s, READY within a second).
AGENT_DOWN = "3m"
# No target at all: the scrape configuration is wrong. Longer than a reload of it.
NO_AGENTS = "10m"
# Starts within an hour: one is an upgrade, more is a crash loop.
RESTARTS_AN_HOUR = 3
# The agent itself calls a check stale after three intervals and a minute (/healthz); the rest is for scrapes.
STALE_INTERVALS = 3
STALE_SLACK_SECONDS = 120
# The agent bears `unknown` for two minutes (unknown_grace); a driver reload takes some more.
UNKNOWN = "15m"
# A GPU that is being reset is away for under a minute.
GPU_MISSING = "2m"
# XID 13 and 31 come once or twice with a bug in a job; a GPU that goes on and on is sick, whatever the code.
XIDS_AN_HOUR = 20
# error_thresholds of infiniband-diags 44 are for a counter's life; here for an hour, as in the check ib_counters.
LINK_ERRORS_AN_HOUR = 10
# Retries of the transport by which a job survives; a clean fabric makes none. Our judgement, as in ib_counters.
RETRIES_AN_HOUR = 1000
# A port that trains anew takes seconds.
PORT_DOWN = "5m"
# gpud takes 3 a day for a warning.
PORT_FLAPS_A_DAY = 3
# Damaged frames on a wire of ours are none; one a second drags TCP down.
ETHERNET_ERRORS_A_SECOND = 1
# Full within a night, judged by the last six hours, and only where less than a quarter is free.
DISK_FULL_WITHIN_SECONDS = 12 * 3600
DISK_FREE_RATIO = 0.25
INODES_FREE_RATIO = 0.05
# Below it the kernel reclaims without end.
MEMORY_FREE_RATIO = 0.02
# A probe is given ten seconds; one that cannot be killed for five minutes is stuck in the kernel.
DOOR_HUNG_SECONDS = 300
# The disk is full or damaged: findings are in memory alone.
LEDGER_DEGRADED = "5m"
# Slack answers within seconds; a quarter of an hour is an outage of it, of the network, or of a token.
ALERT_WAITS_SECONDS = 900
# Signs of life go to the fleet every 30 s.
FLEET_AWAY_SECONDS = 600
# Somebody should have acknowledged, cured or resolved it by then.
INCIDENT_OPEN = "4h"
# Warnings settle or become failures; what is still there after a day wants a look.
WARNING_OPEN = "24h"
