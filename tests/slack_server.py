"""A server that speaks the Slack methods used, keeps everything it is sent, and fails on demand.

Also a script: `python tests/slack_server.py --port 8099 --log messages.jsonl` writes one JSON line a message.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

TOKEN = "xoxb-000000000000-test"
CHANNEL = "C0ALERTS"
NAMES = {"#alerts": CHANNEL, CHANNEL: CHANNEL}
ANY = "*"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the next request of a method meets.

    accepted: whether its message is in the channel all the same. status, error, retry_after: the answer.
    silent: no answer at all, the connection is closed after so many seconds.
    """

    accepted: bool = False
    status: int = 200
    error: str = ""
    retry_after: str = ""
    silent: float | None = None


def limited(seconds: str = "2") -> Fault:
    return Fault(status=429, error="ratelimited", retry_after=seconds)


def failing(status: int = 500, accepted: bool = False) -> Fault:
    return Fault(status=status, accepted=accepted)


def refusing(error: str) -> Fault:
    return Fault(error=error)


def silent(seconds: float = 0.0, accepted: bool = False) -> Fault:
    return Fault(silent=seconds, accepted=accepted)


@dataclass
class Request:
    """One request as it came."""

    method: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclass
class SlackServer:
    """Channel and record of everything. messages: as the channel shows them; requests: all that ever came."""

    log: Path | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    page: int = 100
    _faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _always: dict[str, Fault] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def next(self, method: str, *faults: Fault) -> None:
        """The next requests of this method meet these faults, one each."""
        self._faults[method].extend(faults)

    def always(self, method: str, fault: Fault) -> None:
        """Every request of this method (ANY: of all) meets this fault until `well`."""
        self._always[method] = fault

    def well(self) -> None:
        """No more faults."""
        self._faults.clear()
        self._always.clear()

    def start(self, port: int = 0) -> None:
        handler = type("Handler", (_Handler,), {"slack": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/"

    @property
    def incoming(self) -> str:
        """Address of the incoming webhook."""
        return f"http://127.0.0.1:{self.port}/services/T0/B0/secret"

    @property
    def hook(self) -> str:
        """Address of a plain JSON webhook."""
        return f"http://127.0.0.1:{self.port}/hook"

    def texts(self) -> list[str]:
        """First line of every message, in order."""
        return [message["text"].splitlines()[0] for message in self.messages]

    def ids(self) -> list[str]:
        """The UUID of every message of ours, in order."""
        return [message["metadata"]["event_payload"]["id"] for message in self.messages]

    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    def called(self, method: str) -> list[dict[str, Any]]:
        return [request.body for request in self.requests if request.method == method]

    def taken(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for name in (request.method, ANY):
                if name in self._always:
                    return self._always[name]
                if self._faults.get(name):
                    return self._faults[name].popleft()
        return None

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """What Slack answers when all is well."""
        with self._lock:
            return _METHODS[method](self, body)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        channel = NAMES.get(body.get("channel", CHANNEL))
        if channel is None:
            return {"ok": False, "error": "channel_not_found"}
        root = body.get("thread_ts")
        if root and all(message["ts"] != root for message in self.messages):
            return {"ok": False, "error": "thread_not_found"}
        kept = ("text", "blocks", "metadata", "thread_ts", "reply_broadcast")
        message: dict[str, Any] = {key: body[key] for key in kept if key in body}
        message |= {"ts": f"{1_700_000_000 + len(self.messages)}.000100", "channel": channel, "edits": []}
        self.messages.append(message)
        self._note({"kind": "post", **message})
        return {"ok": True, "channel": channel, "ts": message["ts"], "message": message}

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        for message in self.messages:
            if message["ts"] == body["ts"] and message["channel"] == body["channel"]:
                message["edits"].append(message["text"])
                message["text"] = body["text"]
                message["blocks"] = body.get("blocks", message.get("blocks"))
                self._note({"kind": "update", **message})
                return {"ok": True, "channel": body["channel"], "ts": body["ts"]}
        return {"ok": False, "error": "message_not_found"}

    def _history(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("channel") != CHANNEL:  # a name does not do here
            return {"ok": False, "error": "channel_not_found"}
        return self._page(
            [m for m in reversed(self.messages) if "thread_ts" not in m or m.get("reply_broadcast")], body
        )

    def _replies(self, body: dict[str, Any]) -> dict[str, Any]:
        mine = [m for m in self.messages if body["ts"] in (m["ts"], m.get("thread_ts"))]
        return self._page(mine, body) if mine else {"ok": False, "error": "thread_not_found"}

    def _page(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
        start = int(body.get("cursor") or 0)
        end = start + min(int(body.get("limit", self.page)), self.page)
        found = messages[start:end]
        if str(body.get("include_all_metadata")) not in ("True", "true", "1"):
            found = [{key: value for key, value in message.items() if key != "metadata"} for message in found]
        cursor = str(end) if end < len(messages) else ""
        return {"ok": True, "messages": found, "response_metadata": {"next_cursor": cursor}}

    def _auth(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "team": "Test", "user": "muster", "bot_id": "B0"}

    def _hook(self, body: dict[str, Any]) -> dict[str, Any]:
        self._note({"kind": "hook", **body})
        return {"ok": True}

    def _note(self, entry: dict[str, Any]) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps(entry) + "\n")


_METHODS = {
    "chat.postMessage": SlackServer._post,
    "chat.update": SlackServer._update,
    "conversations.history": SlackServer._history,
    "conversations.replies": SlackServer._replies,
    "auth.test": SlackServer._auth,
    "incoming": SlackServer._post,
    "hook": SlackServer._hook,
}


class _Handler(BaseHTTPRequestHandler):
    slack: SlackServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        method = self._method()
        if method not in _METHODS:
            return self._send(404, {"ok": False, "error": "unknown_method"})
        body = _parsed(raw, self.headers.get("content-type", ""))
        headers = {key.lower(): value for key, value in self.headers.items()}
        fault = self.slack.taken(Request(method, body, headers, time.time()))
        if fault is not None:
            return self._fail(fault, method, body)
        if self.path.startswith("/api/") and headers.get("authorization") != f"Bearer {TOKEN}":
            return self._send(200, {"ok": False, "error": "invalid_auth"})
        answer = self.slack.answer(method, body)
        if method == "incoming":
            return self._text(200, "ok")
        return self._send(200, answer)

    def _method(self) -> str:
        if self.path.startswith("/api/"):
            return self.path.removeprefix("/api/").split("?")[0]
        return "incoming" if self.path.startswith("/services/") else self.path.strip("/")

    def _fail(self, fault: Fault, method: str, body: dict[str, Any]) -> None:
        if fault.accepted:
            self.slack.answer(method, body)
        if fault.silent is not None:
            time.sleep(fault.silent)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)
            return
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        if fault.error:
            self._send(fault.status, {"ok": False, "error": fault.error}, headers)
        else:
            self._text(fault.status, "<html>upstream</html>", headers)

    def _send(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._bytes(status, json.dumps(answer).encode(), "application/json; charset=utf-8", headers or {})

    def _text(self, status: int, answer: str, headers: dict[str, str] | None = None) -> None:
        self._bytes(status, answer.encode(), "text/html; charset=utf-8", headers or {})

    def _bytes(self, status: int, answer: bytes, kind: str, headers: dict[str, str]) -> None:
        with contextlib.suppress(OSError):  # the client was killed, or gave up
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)


def _parsed(raw: bytes, kind: str) -> dict[str, Any]:
    if kind.startswith("application/json"):
        decoded = json.loads(raw)
        assert isinstance(decoded, dict)
        return decoded
    return {key: values[0] for key, values in parse_qs(raw.decode()).items()}


@contextlib.contextmanager
def slack(log: Path | None = None) -> Iterator[SlackServer]:
    """A server for the length of a test."""
    server = SlackServer(log=log)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    server = SlackServer(log=arguments.log)
    server.start(arguments.port)
    sys.stdout.write(f"{server.api} {server.incoming} token {TOKEN} channel {CHANNEL}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
