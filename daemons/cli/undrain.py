"""`muster undrain`: see drain.py, which holds both."""

from daemons.cli.drain import undrain as command

__all__ = ["command"]
