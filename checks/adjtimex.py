"""What the kernel knows of its own clock's discipline: adjtimex(2), read only, without a time daemon's help."""

import ctypes
import os

import msgspec

# Of linux/timex.h: status bits, and the return value that says "the clock is not synchronised".
_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000
_TIME_ERROR = 5


class KernelClock(msgspec.Struct, frozen=True, kw_only=True):
    """synchronised: somebody keeps this clock. offset: seconds still to be slewed away.

    max_error: seconds that the clock may be wrong at most, as the time daemon told the kernel and the kernel lets grow.
    """

    synchronised: bool
    offset: float
    max_error: float


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", ctypes.c_long * 2),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_char * 128),
    )


def kernel_clock() -> KernelClock:
    """Ask the kernel. Raises OSError where a sandbox forbids it."""
    answer = _Timex(modes=0)  # no mode set: nothing is changed, and no privilege is needed
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(answer))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return KernelClock(
        synchronised=state != _TIME_ERROR and not answer.status & _STA_UNSYNC,
        offset=answer.offset / (1e9 if answer.status & _STA_NANO else 1e6),
        max_error=answer.maxerror / 1e6,
    )
