"""All checks, in the order in which people see them."""

from checks.base import Check
from checks.system import memory

CHECKS: tuple[Check, ...] = (memory.CHECK,)


def by_name(name: str) -> Check:
    """The check of that name. Raises KeyError."""
    return {check.name: check for check in CHECKS}[name]
