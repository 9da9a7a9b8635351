"""Which lines of a Python stack are the user's own: the only ones that a person can mend."""

import re
from collections.abc import Sequence

import msgspec

# Where Python and its packages live; everything else is somebody's own code.
_NOT_USERS = re.compile(
    r"(^<|/(site|dist)-packages/|/lib(64)?/python3\.\d+/|/daemons/supervisor/job/|/muster_beat\.py$|\.(so|pyx)(\.|$)"
    r"|^(torch|numpy)/|\.cpython-)"
)
_PYTHONS_OR_TORCHS = re.compile(
    r"^<|/lib(64)?/python3\.\d+/(?!(site|dist)-packages/)|/(site|dist)-packages/(torch|numpy|triton)/"
    r"|/daemons/supervisor/job/|/muster_beat\.py$|\.so(\.|$)"
)
_TRACEBACK_LINE = re.compile(r'^\s*File "([^"]+)", line (\d+)(?:,? in (.+))?$')


class Frame(msgspec.Struct, frozen=True):
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}"

    @property
    def users(self) -> bool:
        """Whether it lies in the user's code."""
        return _NOT_USERS.search(self.file) is None


def innermost_users(stack: Sequence[Frame]) -> Frame | None:
    """The user's frame nearest to what the process does; `stack` begins with the innermost frame.

    A job whose code is all installed (`-m package`) has none of its own: then it is the nearest that is neither
    Python's nor torch's.
    """
    own = next((frame for frame in stack if frame.users), None)
    return own or next((frame for frame in stack if not _PYTHONS_OR_TORCHS.search(frame.file)), None)


def last_traceback(text: str) -> list[Frame]:
    """The frames of the last Python traceback in a log, innermost first; empty when there is none.

    Reads both the interpreter's tracebacks (outermost first) and faulthandler's (innermost first).
    """
    blocks: list[list[Frame]] = []
    reverse = True
    fresh = True
    for raw in text.splitlines():
        line = re.sub(r"^\[[^\]]*\]:\s?", "", raw)
        if "Traceback (most recent call last)" in line or "most recent call first" in line:
            # faulthandler prints the thread that crashed first; the others after it say nothing.
            if "call first" in line and blocks and not reverse and not fresh:
                continue
            reverse, fresh = "call last" in line, True
            blocks.append([])
        elif blocks and (match := _TRACEBACK_LINE.match(line)):
            fresh = False
            blocks[-1].append(Frame(match[1], int(match[2]), (match[3] or "").strip()))
    frames = next((block for block in reversed(blocks) if block), [])
    return frames[::-1] if reverse else frames
