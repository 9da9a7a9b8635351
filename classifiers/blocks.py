"""Messages of several lines: Python tracebacks with their chain, and torchelastic's summary of the first failure."""

import builtins
from dataclasses import dataclass, field
from itertools import groupby

import re2

# The first line of each kind of block, as line rules know it.
TRACEBACK = "Traceback (most recent call last)"
FRAME = '  File "'
SUMMARY = "Root Cause (first observed failure):"

_MOST_LINES = 600  # a traceback of a recursion that went too deep has 1,000 frames, folded by Python into a few
_MOST_AFTER = 12  # lines after an exception's, in which its message may go on and its chain begin
_MOST_STRAYS = 60  # lines of others between those of one traceback
_FRAME = re2.compile(r'File "([^"]+)", line \d+(?:, in (\S+))?')
_RICH_FRAME = re2.compile(r"[│|] +(\S+\.py):\d+ in (\S+)")
# What Python prints last: the class with its module, and the message after a colon.
_EXCEPTION = re2.compile(r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:: (.*)|:?)")
_LIKE_CLASS = re2.compile(
    r"(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Timeout|Iteration|Failure|Warning|Refused|Unavailable"
    r"|NotFound|Denied|Invalid\w*|Mismatch|Killed|Lost|Died|Empty|Full|Abort\w*|Cancelled|Group|Conflict|Forbidden|Expired|Error_\w+)|error|timeout|[A-Z]\w+)"
)
_DIRECT = "The above exception was the direct cause of the following exception"
_DURING = "During handling of the above exception, another exception occurred"
_FIELD = re2.compile(r"^\s*(time|host|rank|exitcode|error_file|traceback|msg)\s*: (.*)$")


@dataclass(slots=True)
class Line:
    """One line of a source: number from 1, text without colours."""

    number: int
    text: str
    order: int


@dataclass(slots=True)
class Raised:
    """One exception of a traceback. place: its index in the chain; causes: whether the next was raised `from` it."""

    type: str
    message: str
    line: Line
    frames: list[str]
    chain: int
    place: int
    link: str  # how it hangs on the one before: "", "direct" or "during"
    ignored: bool


class Prefix:
    """What stands before the first line of a block, timestamps and ranks included; the block's lines carry its like."""

    def __init__(self, before: str) -> None:
        self.text = before
        # Most lines of others differ in their first character already; a digit may be another one of a timestamp.
        self._first = before[:1] if before.strip() and not before[:1].isdigit() else ""
        parts = (r"\d+" if digits else re2.escape("".join(run)) for digits, run in groupby(before, str.isdigit))
        self._like = re2.compile("".join(parts)) if before.strip() else None

    def rest(self, text: str) -> str | None:
        """The line after the prefix, None when it has another one."""
        if self._first and text[:1] != self._first:
            return None
        if self._like is None:
            return text[len(self.text) :] if text.startswith(self.text) else text
        found = self._like.match(text)
        return text[found.end() :] if found else None


@dataclass(slots=True)
class TracebackBlock:
    """Follows one traceback until its exception's line, and its chain if there is one."""

    first: Line
    chain: int
    ignored: bool = False
    place: int = 0
    link: str = ""
    done: bool = False
    raised: list[Raised] = field(default_factory=list)
    _prefix: Prefix = field(init=False)
    _frames: list[str] = field(default_factory=list)
    _lines: int = 0
    _strays: int = 0
    quoting: bool = False  # the line last taken was a frame or source code
    _between: bool = False  # after an exception's line, where a chain may go on

    def __post_init__(self) -> None:
        text = self.first.text
        whole = TRACEBACK in text
        before = text[: text.find(TRACEBACK if whole else FRAME)]
        before = before.removesuffix("Original ")  # a loader's worker quotes the one it had
        boxed = "╭" in before or "─" in before
        self._prefix = Prefix("" if boxed else before)
        if not whole:
            self._within(self.first, text[len(before) :])

    def feed(self, line: Line) -> bool:
        """Take a line that follows; True when it belongs to this block. `done` says that no more do."""
        self._lines += 1
        if self._lines > _MOST_LINES:
            self.done = True
            return False
        rest = self._prefix.rest(line.text)
        if rest is None:
            return self._stray()
        self.quoting = False
        return self._after(line, rest) if self._between else self._within(line, rest)

    def _stray(self) -> bool:
        self._strays += 1
        self.done = self._strays > (_MOST_AFTER if self._between else _MOST_STRAYS)
        return False

    def _within(self, line: Line, rest: str) -> bool:
        if (frame := _FRAME.search(rest)) or (frame := _RICH_FRAME.search(rest)):
            self._frames.append(f"{frame[1]}:{frame[2] or ''}")
            self.quoting = True
            return True
        if TRACEBACK in rest:  # two writers in one file: the later one goes on
            return True
        if not rest.strip() or rest[0] in " \t│╭╰|+~^" or rest.startswith(("[Previous line repeated", "...")):
            self.quoting = True
            return True
        found = _EXCEPTION.fullmatch(rest.rstrip())
        if found is None or (not self._frames and not _LIKE_CLASS.fullmatch(found[1])):
            return self._stray()
        if not _LIKE_CLASS.fullmatch(found[1]) and "." not in found[1]:
            return self._stray()
        self._raise(found[1], found[2] or "", line)
        return True

    def _raise(self, name: str, message: str, line: Line) -> None:
        self.raised.append(Raised(name, message, line, self._frames, self.chain, self.place, self.link, self.ignored))
        self._frames, self._between, self._lines, self._strays = [], True, 0, 0

    def _after(self, line: Line, rest: str) -> bool:
        """The message's further lines, then perhaps the chain."""
        if _DIRECT in rest or _DURING in rest:
            self.link = "direct" if _DIRECT in rest else "during"
            return True
        if TRACEBACK in rest and self.link and self.place < len(self.raised):
            self._between, self.place = False, self.place + 1
            return True
        if not rest.strip():
            return True
        last = self.raised[-1]
        if not last.message.strip("* ") and last.line.text.rstrip().endswith(":"):
            last.message, last.line = rest.strip(), line if rest.strip("* ") else last.line
            return True
        if self.link and self.place < len(self.raised):
            return self._stray()
        self.done = self._lines > _MOST_AFTER
        return False


@dataclass(slots=True)
class SummaryBlock:
    """Follows torchelastic's "Root Cause" table: which rank it saw fail first, where and how."""

    first: Line
    done: bool = False
    fields: dict[str, str] = field(default_factory=dict)
    exit_line: Line | None = None
    _lines: int = 0

    def feed(self, line: Line) -> bool:
        """Take a line that follows; True when it belongs to the table."""
        self._lines += 1
        self.done = self._lines > 40 or "====" in line.text
        text = line.text[line.text.rfind("]: ") + 3 :] if "]: " in line.text[:40] else line.text
        found = _FIELD.search(text)
        if found is None:
            return False
        self.fields[found[1]] = found[2].strip()
        if found[1] == "exitcode":
            self.exit_line = line
        return True


_LOOSE = re2.compile(r"^(?:.*?[\]):>] +|\s*)((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)): (.*)$")
# Without a module these could be the names of metrics (MeanSquaredError: 0.1).
_BUILTIN = frozenset(
    name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, Exception)
)


def loose_exception(line: Line) -> Raised | None:
    """An exception's last line whose traceback the log lacks; None when the class stands in the midst of a sentence."""
    found = _LOOSE.search(line.text)
    if found is None or (
        "." not in found[1] and found[1] not in _BUILTIN and not found[1].startswith(("Dist", "Json"))
    ):
        return None
    return Raised(found[1], found[2], line, [], line.order, 0, "", ignored=False)
