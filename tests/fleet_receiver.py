"""A fleet for tests: a real HTTP server that admits batches as the fleet daemon does and keeps them in memory."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from daemons.fleet.admission import Known, admit
from daemons.wire import PATH, Batch, Receipt


class FleetReceiver(ThreadingHTTPServer):
    """applied: (ledger, seq, component) in order. answer: a status to give instead of taking anything."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.known: Known | None = None
        self.applied: list[tuple[str, int, str]] = []
        self.batches: list[Batch] = []
        self.answer = 0
        self.lose_answer = False
        self.news = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def wait_for(self, component: str) -> None:
        with self.news:
            assert self.news.wait_for(lambda: any(component == name for *_, name in self.applied), timeout=20)

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def take(self, batch: Batch) -> Receipt:
        with self.news:
            said = admit(self.known, batch, batch.sent)
            self.batches.append(batch)
            if not said.error:
                self.known = Known(
                    ledger=batch.ledger, machine=batch.machine, applied=said.applied, seen=batch.sent, interval=30
                )
                self.applied += [(batch.ledger, change.seq, change.finding.component) for change in said.fresh]
            self.news.notify_all()
            return Receipt(applied=said.applied, error=said.error)


class _Handler(BaseHTTPRequestHandler):
    server: FleetReceiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # the name that http.server calls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.answer:
            self._say(self.server.answer, b"away")
        elif self.path != PATH or self.headers["authorization"] != f"Bearer {self.server.token}":
            self._say(401, msgspec.json.encode(Receipt(applied=0, error="needs the node's token")))
        else:
            said = self.server.take(msgspec.json.decode(body, type=Batch))
            if self.server.lose_answer:
                self.server.lose_answer = False
                self.close_connection = True
                return
            self._say(200, msgspec.json.encode(said))

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""
