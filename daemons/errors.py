"""The errors that a person is told in one line; anything else is a bug and shows its traceback."""


class MusterError(Exception):
    """Something the user can mend; the message names what, where and the remedy. exit_code: of the command."""

    exit_code = 2


class ConfigError(MusterError):
    """The configuration is wrong; the message begins with file and key."""


class StateError(MusterError):
    """The state directory cannot be used: not writable, or held by another agent."""


class AddressError(MusterError):
    """The address to listen on is taken or not ours."""
