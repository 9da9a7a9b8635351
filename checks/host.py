"""The one door to the machine (in progress)."""


class Host:
    """Roots of /proc, /sys, /dev; commands with a deadline; the clock."""
