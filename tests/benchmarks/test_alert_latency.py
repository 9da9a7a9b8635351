"""How long after the kernel wrote a line the request with the alert is there: a real agent, a real HTTP receiver."""

import random
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from running_agent import RunningAgent

NODE = Path(__file__).parents[1] / "fixtures/nodes/h100_host_healthy"
LINES = 60


class Receiver(ThreadingHTTPServer):
    """Takes the webhook's messages, and knows when each came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.came = threading.Condition()
        self.bodies: list[tuple[float, str]] = []

    def when(self, text: str) -> float:
        """The moment at which a message with this text came; waits for it."""
        with self.came:
            self.came.wait_for(lambda: any(text in body for _, body in self.bodies), timeout=30)
            return next(at for at, body in self.bodies if text in body)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:  # the name that http.server calls
        at = time.monotonic()
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(200)
        self.end_headers()
        with self.server.came:
            self.server.bodies.append((at, body))
            self.server.came.notify_all()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.timeout(300)
def test_kernel_log_line_to_alert_request(tmp_path: Path, receiver: Receiver) -> None:
    node = tmp_path / "node"
    shutil.copytree(NODE, node)
    # Every line is to be an incident of its own: nothing is held back for a burst or as a relapse.
    config = (
        f"[alerts]\nburst_messages = 1000\nreopen_minutes = 0.0001\nflap_minutes = 0.0001\n"
        f'[alerts.webhook]\nurl = "http://127.0.0.1:{receiver.server_port}/"\n'
    )
    agent = RunningAgent(tmp_path, replay=node, config=config)
    agent.all_checked()
    chance = random.Random(7)
    number = int((node / "dev/kmsg").read_text().strip().splitlines()[-1].split(",")[1])
    times = []
    for count in range(LINES):
        time.sleep(chance.uniform(0.1, 1.1))  # anywhere within the check's interval
        written = time.monotonic()
        with (node / "dev/kmsg").open("a") as log:
            log.write(f"3,{number + count + 1},900000000,-;nfs: server bench{count}x not responding, still trying\n")
        times.append(receiver.when(f"bench{count}x") - written)
        for incident in agent.json("/incidents"):
            if incident["state"] != "resolved":
                agent.post(f"/incidents/{incident['id']}/resolve", {"who": "bench"})
    assert agent.end() == 0
    cuts = statistics.quantiles(times, n=100)
    print(f"\nline to request: p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, worst {max(times):.2f} s of {LINES}")
    assert len(times) == LINES
