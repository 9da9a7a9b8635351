"""The local API: /metrics, /healthz, /findings to read; changes need the token of the state directory."""

import asyncio
import hmac
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from checks.base import Finding, Status
from checks.clock import Clock
from daemons.errors import AddressError, MusterError, StateError
from daemons.metrics import CONTENT_TYPE, Exposition
from daemons.node.board import Board

# A check is stale when it has not looked for so many of its intervals (plus a minute, for the short ones).
STALE_INTERVALS = 3
_BODY_BYTES = 1 << 20
TOKEN_FILE = "api-token"


class Agent(Protocol):
    """What the API asks of the agent. `ask` runs a function in the agent's main loop."""

    @property
    def board(self) -> Board: ...
    @property
    def clock(self) -> Clock: ...
    def ask(self, question: Callable[[], Any]) -> "Future[Any]": ...
    def incidents(self) -> list[dict[str, Any]]: ...
    def acknowledge(self, incident: str, who: str, note: str) -> None: ...
    def resolve(self, incident: str, who: str, note: str) -> None: ...
    def take(self, findings: list[Finding]) -> int: ...


class Who(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an acknowledgement."""

    who: str = ""
    note: str = ""


def health(board: Board, now: float) -> tuple[bool, dict[str, Any]]:
    """Whether every check looked lately, and the age of each in seconds (None: never looked)."""
    checks = {}
    fresh = True
    for state in board.checks.values():
        since = state.last_looked or board.started
        age = max(0.0, now - since)
        stale = age > STALE_INTERVALS * state.interval + 60.0
        fresh &= not stale
        checks[state.name] = {
            "status": str(state.outcome.status) if state.outcome else str(Status.UNKNOWN),
            "age_seconds": round(age, 1) if state.last_looked else None,
            "interval_seconds": state.interval,
            "stale": stale,
        }
    answer = {
        "node": board.node,
        "healthy": fresh and not board.degraded,
        "status": str(board.status),
        "ledger": board.degraded or "ok",
        "alerts": board.alerts.trouble or "ok",
        "alerts_waiting": board.alerts.waiting,
        "checks": checks,
    }
    return fresh and not board.degraded, answer


class Api:
    """The routes of one agent."""

    def __init__(self, agent: Agent, token: str) -> None:
        self._agent = agent
        self._token = token
        self._exposition = Exposition(lambda: agent.board)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/metrics", self.metrics),
                Route("/healthz", self.healthz),
                Route("/findings", self.findings, methods=["GET"]),
                Route("/findings", self.deliver, methods=["POST"]),
                Route("/incidents", self.incidents),
                Route("/incidents/{incident}/ack", self.acknowledge, methods=["POST"]),
                Route("/incidents/{incident}/resolve", self.resolve, methods=["POST"]),
            ]
        )

    async def page(self, request: Request) -> Response:
        """The status page of this node."""
        return Response(status_page(), media_type="text/html; charset=utf-8")

    async def metrics(self, request: Request) -> Response:
        return Response(self._exposition.page(), headers={"content-type": CONTENT_TYPE})

    async def healthz(self, request: Request) -> Response:
        """200 while every check looked lately and the ledger can be written, else 503; the age of every check."""
        well, answer = health(self._agent.board, self._agent.clock.now())
        return JSONResponse(answer, status_code=200 if well else 503)

    async def findings(self, request: Request) -> Response:
        """The node, its status, what is open in the ledger and what every check last saw."""
        board = self._agent.board
        last = [f for s in board.checks.values() if s.outcome for f in s.outcome.findings]
        answer = {"node": board.node, "status": board.status, "open": board.open, "last": last}
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def incidents(self, request: Request) -> Response:
        return JSONResponse(await self._ask(self._agent.incidents))

    async def deliver(self, request: Request) -> Response:
        """Take findings of somebody else on this node (`muster run`) into the ledger."""
        refusal = self._refuse(request)
        if refusal:
            return refusal
        try:
            found = msgspec.json.decode(await read_body(request), type=list[Finding])
            taken = await self._ask(lambda: self._agent.take(found))
        except (msgspec.DecodeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"taken": taken})

    async def acknowledge(self, request: Request) -> Response:
        return await self._change(request, self._agent.acknowledge)

    async def resolve(self, request: Request) -> Response:
        return await self._change(request, self._agent.resolve)

    async def _change(self, request: Request, change: Callable[[str, str, str], None]) -> Response:
        refusal = self._refuse(request)
        if refusal:
            return refusal
        try:
            body = await read_body(request)
            told = msgspec.json.decode(body, type=Who) if body else Who()
            await self._ask(lambda: change(request.path_params["incident"], told.who, told.note))
        except (msgspec.DecodeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except MusterError as error:
            return JSONResponse({"error": str(error)}, status_code=404)
        return JSONResponse({"done": True})

    async def _ask(self, question: Callable[[], Any]) -> Any:
        return await asyncio.wait_for(asyncio.wrap_future(self._agent.ask(question)), timeout=10)

    def _refuse(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        return JSONResponse({"error": f"needs the token in {TOKEN_FILE} of the state directory"}, status_code=401)


async def read_body(request: Request, limit: int = _BODY_BYTES) -> bytes:
    """The body, read no further than the limit. Raises ValueError above it."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > limit:
            raise ValueError(f"body above {limit} bytes")
    return bytes(parts)


def status_page(name: str = "index.html") -> bytes:
    """The page as installed, or as it stands in a clone."""
    clone = Path(__file__).parents[2] / "dashboards/web" / name
    return (clone if clone.exists() else Path(sys.prefix) / "share/muster/web" / name).read_bytes()


def token(state: Path) -> str:
    """The token of this state directory, made on first use, readable by its owner alone. Raises StateError."""
    path = state / TOKEN_FILE
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
        return path.read_text().strip()
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error


def listen(address: str, key: str = "node.listen", example: str = "127.0.0.1:9808") -> socket.socket:
    """A listening socket on "host:port"; key: where that is configured. Raises AddressError with the remedy."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise AddressError(f"{key}: {address!r} is no host:port such as {example}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=1024)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        remedy = f"set {key} to a free port (0 takes any)"
        raise AddressError(f"{key}: cannot listen on {address}: {why}; {remedy}") from error


class Server:
    """The API in a thread of its own, on a socket that is already bound.

    tls: files of a certificate and its key. keep_alive: seconds for which an idle connection stays open.
    """

    def __init__(
        self, app: Starlette, bound: socket.socket, tls: tuple[str, str] | None = None, keep_alive: int = 5
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_keep_alive=keep_alive,
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
        )
        self._server = uvicorn.Server(config)
        self._bound = bound
        self._thread = threading.Thread(target=self._serve, name="api", daemon=True)

    @property
    def address(self) -> str:
        """host:port as it is listened on."""
        host, port = self._bound.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what is under way, then close."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(timeout=3)
        self._bound.close()

    def _serve(self) -> None:
        self._server.run(sockets=[self._bound])
