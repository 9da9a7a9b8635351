"""What bytes of a source are before they are lines: UTF-16, and logs wrapped in JSON by a container or the journal."""

import codecs
import time
from collections.abc import Callable

import msgspec

_BOMS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
# Enough to tell what a source is; a source that ends earlier is told by what it has.
_ENOUGH = 64
# An unfinished JSON line longer than this is passed on as it is.
_LONGEST_RECORD = 4 * 1024 * 1024


class _Extra(msgspec.Struct, frozen=True):
    py_callstack: str = ""
    timestamp: str = ""


class _ErrorFile(msgspec.Struct, frozen=True):
    """What torchelastic's `@record` writes into a rank's error file."""

    message: str = ""
    extra: _Extra = msgspec.field(name="extraInfo", default=_Extra())


class _Record(msgspec.Struct, frozen=True):
    """A line of `journalctl -o json` or of a container's json-file log; MESSAGE may be a list of bytes."""

    MESSAGE: str | list[int] | None = None
    log: str | None = None
    message: "_ErrorFile | str | None" = None
    identifier: str = msgspec.field(name="SYSLOG_IDENTIFIER", default="")
    host: str = msgspec.field(name="_HOSTNAME", default="")
    realtime: str = msgspec.field(name="__REALTIME_TIMESTAMP", default="")


_DECODE = msgspec.json.Decoder(_Record)


class Intake:
    """Turns a source's bytes into UTF-8 lines for `out`, after a look at the first of them."""

    def __init__(self, out: Callable[[bytes], None]) -> None:
        self.bytes = 0
        self.notes: list[str] = []
        self._out = out
        self._first = b""
        self._kind = ""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Bytes as they come."""
        self.bytes += len(chunk)
        if self._kind == "plain":
            self._out(chunk)
            return
        if not self._kind:
            self._first += chunk
            if len(self._first) < _ENOUGH:
                return
            chunk, self._first = self._first, b""
            self._kind = kind_of(chunk)
        self._pass(chunk)

    def flush(self) -> None:
        """Pass on what was held back."""
        if not self._kind and self._first:
            chunk, self._first = self._first, b""
            self._kind = kind_of(chunk)
            self._pass(chunk)
        if self._rest:
            self._out(unwrapped(self._rest))
            self._rest = b""

    def _pass(self, chunk: bytes) -> None:
        if self._kind.startswith("utf-16"):
            if self._decoder is None:
                self._decoder = codecs.getincrementaldecoder(self._kind)("replace")
            self._out(self._decoder.decode(chunk).encode("utf-8", "replace"))
        elif self._kind == "json":
            self._records(chunk)
        else:
            self._out(chunk)

    def _records(self, chunk: bytes) -> None:
        data = self._rest + chunk
        cut = data.rfind(b"\n") + 1
        whole, self._rest = data[:cut], data[cut:]
        if len(self._rest) > _LONGEST_RECORD:
            whole, self._rest = data, b""
        if whole:
            self._out(b"\n".join(map(unwrapped, whole.split(b"\n"))))


def kind_of(start: bytes) -> str:
    """`plain`, `json` (one record a line) or the UTF-16 that the bytes are in, by their beginning."""
    if start[:2] in _BOMS:
        return _BOMS[start[:2]]
    head = start[:_ENOUGH]
    if len(head) >= 8 and b"\n" not in head[:2]:
        even, odd = head[0::2].count(0), head[1::2].count(0)
        if odd > len(head) // 3 and not even:
            return "utf-16-le"
        if even > len(head) // 3 and not odd:
            return "utf-16-be"
    if start[:1] == b"{" and (
        b'"log":' in start or b'"MESSAGE"' in start or b'"__' in start or b'"extraInfo"' in start
    ):
        return "json"
    return "plain"


def looks_binary(start: bytes) -> bool:
    """Whether these are no text in any encoding: zeros that UTF-16 does not explain."""
    return b"\0" in start[:4096] and not kind_of(start).startswith("utf-16")


def unwrapped(line: bytes) -> bytes:
    """The message of a record, with the journal's time and host before it; a line that is none stays as it is.

    A message of several lines stays one line with its parts apart by carriage returns: line numbers stay right.
    """
    if line[:1] != b"{":
        return line
    try:
        record = _DECODE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line
    if record.log is not None:
        return record.log.rstrip("\n").replace("\n", "\r").encode("utf-8", "replace")
    if isinstance(record.message, _ErrorFile) and record.message.extra.py_callstack:
        return record.message.extra.py_callstack.replace("\n", "\r").encode("utf-8", "replace")
    if record.MESSAGE is None:
        return line
    if isinstance(record.MESSAGE, list):
        message = bytes(byte & 0xFF for byte in record.MESSAGE)
    else:
        message = record.MESSAGE.encode("utf-8", "replace")
    return _syslog(record) + message.replace(b"\n", b"\r")


def _syslog(record: _Record) -> bytes:
    """The head that the journal's short-iso format puts before a message."""
    if not record.realtime.isdigit():
        return b""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(record.realtime) / 1e6))
    return f"{moment} {record.host or '-'} {record.identifier or 'kernel'}: ".encode()
