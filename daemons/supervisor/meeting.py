"""Where the supervisors of one job meet: each sends what it sees to the leader's, which judges over all ranks.

The leader listens on one address; whoever can bind it is the leader. Every message carries the job's token. A follower
sends its sample once a second and gets its orders back: to look more closely, which verdict stands, to end the job.
Both sides notice within the time of a few messages when the other is gone.
"""

import hmac
import http.client
import http.server
import socket
import socketserver
import threading
import time
from collections.abc import Callable

import msgspec

from daemons.errors import MusterError
from daemons.supervisor.record import Verdict
from daemons.supervisor.snapshot import HostSample, RankLook, RankSample

# A supervisor that has said nothing for so long is gone: ten messages, and time for a machine under load.
LOST_SECONDS = 10.0
_MESSAGE_SECONDS = 3.0
_BODY_BYTES = 64 << 20


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """From a follower. attempt: which start of the job. look: number of the look that `looks` answers, 0 for none."""

    host: str
    attempt: int
    sample: HostSample
    look: int = 0
    looks: dict[int, RankLook] = {}
    over: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """To a follower. look: the last one wanted. verdict: that stands. end: end the job. over: the leader's part is."""

    look: int = 0
    verdict: Verdict | None = None
    end: bool = False
    over: bool = False


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where to meet. token: shared by the supervisors of the job, from MUSTER_JOB_TOKEN."""

    address: str
    token: str

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


def place(address: str, token: str) -> Place:
    """A checked place. Raises MusterError with the remedy."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise MusterError(f"run: --leader {address!r}: give host:port, the same on every host of the job")
    if len(token) < 16:
        raise MusterError(
            "run: --leader needs a token of 16 characters or more in MUSTER_JOB_TOKEN, the same on every host"
        )
    return Place(address=address, token=token)


class Leader:
    """The side that judges. Raises OSError when the address is somebody else's."""

    def __init__(self, where: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self.order = Order()
        self._clock = clock
        self._lock = threading.Lock()
        self._reports: dict[str, tuple[float, Report]] = {}
        self._looks: dict[str, tuple[int, dict[int, RankLook]]] = {}
        self._told_over: set[str] = set()
        self._server = _server(where, self._take)
        threading.Thread(target=self._server.serve_forever, name="meeting", daemon=True).start()

    def samples(self, attempt: int) -> list[HostSample]:
        """What the followers last said of this attempt, made older by the time since."""
        now = self._clock()
        with self._lock:
            found = [(now - at, r.sample) for at, r in self._reports.values() if r.attempt == attempt and not r.over]
        return [aged(sample, age) for age, sample in found]

    def lost(self) -> dict[str, float]:
        """Hosts that have said nothing for LOST_SECONDS although their part was not over, and for how long."""
        now = self._clock()
        with self._lock:
            ages = {host: now - at for host, (at, report) in self._reports.items() if not report.over}
        return {host: age for host, age in ages.items() if age > LOST_SECONDS}

    def ask(self) -> int:
        """Want a look from everybody; its number."""
        self.order = msgspec.structs.replace(self.order, look=self.order.look + 1)
        return self.order.look

    def answers(self, number: int) -> tuple[dict[int, RankLook], bool]:
        """What has come of look `number`, and whether all that can be expected has."""
        lost = self.lost()
        with self._lock:
            expected = {host for host, (_, report) in self._reports.items() if not report.over and host not in lost}
            arrived = {host for host, (n, _) in self._looks.items() if n >= number}
            ranks = {rank: look for host in arrived for rank, look in self._looks[host][1].items()}
        return ranks, expected <= arrived

    def close(self) -> None:
        """Tell the followers that it is over here, then stop listening."""
        self.order = msgspec.structs.replace(self.order, over=True)
        end = self._clock() + 3.0
        while self._clock() < end:
            with self._lock:
                waiting = {host for host, (at, r) in self._reports.items() if not r.over} - self._told_over
            if not waiting - set(self.lost()):
                break
            time.sleep(0.1)
        self._server.shutdown()
        self._server.server_close()

    def _take(self, report: Report) -> Order:
        with self._lock:
            self._reports[report.host] = (self._clock(), report)
            if report.look:
                self._looks[report.host] = (report.look, report.looks)
            if self.order.over:
                self._told_over.add(report.host)
        return self.order


def aged(sample: HostSample, seconds: float) -> HostSample:
    """The same sample some time later."""

    def older(rank: RankSample) -> RankSample:
        return msgspec.structs.replace(rank, step_age=rank.step_age + seconds, phase_age=rank.phase_age + seconds)

    return msgspec.structs.replace(
        sample, ranks=[older(rank) for rank in sample.ranks], output_age=sample.output_age + seconds
    )


def _server(where: Place, take: Callable[[Report], Order]) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            given = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), where.token.encode()):
                self._answer(401, b'{"error": "needs the token of the job"}')
                return
            if length > _BODY_BYTES:
                self._answer(413, b"")
                return
            try:
                report = msgspec.json.decode(self.rfile.read(length), type=Report)
            except msgspec.DecodeError as error:
                self._answer(400, str(error).encode())
                return
            self._answer(200, msgspec.json.encode(take(report)))

        def _answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("content-length", str(len(body)))
            if code != 200:
                self.close_connection = True
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: once a second and host."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        # Without it a second supervisor on this host could take the address of the first.
        allow_reuse_address = False
        address_family = socket.AF_INET6 if ":" in where.endpoint[0] else socket.AF_INET

        def server_bind(self) -> None:
            """Without the look-up of our own name, which may take long where names are sick."""
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = where.endpoint

        def handle_error(self, request: object, client_address: object) -> None:
            """A follower that goes away in the middle of a message is noticed by its silence."""

    return Server(where.endpoint, Handler)


class Follower:
    """The side that reports. `look`: called in this side's thread when the leader wants one."""

    def __init__(
        self,
        where: Place,
        host: str,
        look: Callable[[], dict[int, RankLook]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.order = Order()
        self.trouble = ""
        self._where = where
        self._host = host
        self._look = look
        self._clock = clock
        self._heard = clock()
        self._report: Report | None = None
        self._done = 0
        self._new = threading.Event()
        self._closed = False
        self._channel: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._work, name="meeting", daemon=True)
        self._thread.start()

    @property
    def silent(self) -> float:
        """Seconds since the leader last answered."""
        return self._clock() - self._heard

    def say(self, attempt: int, sample: HostSample, over: bool = False) -> None:
        """Send this next; what was not sent yet is out of date and dropped."""
        self._report = Report(host=self._host, attempt=attempt, sample=sample, over=over)
        self._new.set()

    def close(self, attempt: int) -> None:
        """Say that it is over here."""
        self.say(attempt, HostSample(host=self._host), over=True)
        self._closed = True
        self._thread.join(_MESSAGE_SECONDS + 1.0)

    def _work(self) -> None:
        while True:
            self._new.wait()
            self._new.clear()
            report = self._report
            assert report is not None
            if self.order.look > self._done and not report.over:
                wanted = self.order.look
                report = msgspec.structs.replace(report, look=wanted, looks=self._look())
                self._done = wanted
            self._send(report)
            if self.order.look > self._done and not report.over:
                self._new.set()  # do not wait a second with a look that is wanted now
            if self._closed and report.over:
                if self._channel is not None:
                    self._channel.close()
                return

    def _send(self, report: Report) -> None:
        body = msgspec.json.encode(report)
        headers = {"authorization": f"Bearer {self._where.token}", "content-type": "application/json"}
        for _ in range(2):  # a connection that the other side has closed meanwhile is opened anew once
            try:
                if self._channel is None:
                    self._channel = http.client.HTTPConnection(*self._where.endpoint, timeout=_MESSAGE_SECONDS)
                self._channel.request("POST", "/report", body, headers)
                answer = self._channel.getresponse()
                data = answer.read()
                if answer.status != 200:
                    self.trouble = f"{self._where.address}: {answer.status} {data[:100].decode('utf-8', 'replace')}"
                    return
                self.order = msgspec.json.decode(data, type=Order)
                self._heard, self.trouble = self._clock(), ""
                return
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                self.trouble = f"{self._where.address}: {error}"
                if self._channel is not None:
                    self._channel.close()
                self._channel = None


def meet(where: Place, host: str, look: Callable[[], dict[int, RankLook]]) -> Leader | Follower:
    """Lead where the address is ours, else follow."""
    try:
        return Leader(where)
    except OSError:
        return Follower(where, host, look)
