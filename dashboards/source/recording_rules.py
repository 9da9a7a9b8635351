"""Recording rules: what alerts and dashboards both ask, under one name each (level:what:how)."""

from rules import Record

# Errors of the link itself, as the check ib_counters has them, and retries of the transport above it.
LINK_COUNTERS = (
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "port_rcv_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
)
RETRY_COUNTERS = ("local_ack_timeout_err", "packet_seq_err", "out_of_sequence", "rnr_nak_retry_err")


def _increases(name: str, counters: tuple[str, ...]) -> tuple[Record, ...]:
    """One rule a counter, told apart by the label `counter`: a counter that a card lacks hides no other."""
    return tuple(
        Record(name, f"increase(muster_infiniband_{counter}_total[1h])", {"counter": counter}) for counter in counters
    )


RECORDS = (
    Record("instance:muster_checks:count_by_status", "sum by (job, instance, status) (muster_check_status)"),
    Record("instance:muster_findings_open:sum", "sum by (job, instance, status) (muster_findings_open)"),
    Record("instance:muster_gpus_missing:difference", "muster_gpus_expected - muster_gpus_visible"),
    Record(
        "check:muster_check_age:seconds",
        "time() - (muster_check_last_success_timestamp_seconds > 0 or on (job, instance, check)"
        " muster_check_interval_seconds * 0 + on (job, instance) group_left () muster_start_time_seconds)",
    ),
    Record(
        "mount:muster_filesystem_free:ratio",
        "muster_filesystem_available_bytes / (muster_filesystem_size_bytes > 0)",
    ),
    Record(
        "mount:muster_inodes_free:ratio",
        "muster_filesystem_available_inodes / (muster_filesystem_inodes > 0)",
    ),
    *_increases("port:muster_link_errors:increase1h", LINK_COUNTERS),
    *_increases("port:muster_transport_retries:increase1h", RETRY_COUNTERS),
)
