"""The fleet's HTTP: the nodes' way in, what is known for people and Prometheus, and changes by those with the token."""

import asyncio
import hmac
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from checks.base import Finding
from daemons.errors import MusterError
from daemons.fleet.board import FleetBoard
from daemons.fleet.intake import Intake
from daemons.fleet.metrics import FleetExposition
from daemons.fleet.policy import Decision
from daemons.fleet.store import NodeRow, StoreAway
from daemons.metrics import CONTENT_TYPE
from daemons.node.api import TOKEN_FILE, Who, read_body, status_page
from daemons.wire import PATH

_AUDITED = 200


class Fleet(Protocol):
    """What the API asks of the daemon. `ask` runs a function in its main loop; the others may take a moment."""

    @property
    def board(self) -> FleetBoard: ...
    def ask(self, question: Callable[[], Any]) -> "Future[Any]": ...
    def nodes(self) -> list[NodeRow]: ...
    def findings(self, node: str) -> list[Finding]: ...
    def audit(self, limit: int) -> list[Decision]: ...
    def incidents(self) -> list[dict[str, Any]]: ...
    def acknowledge(self, incident: str, who: str, note: str) -> None: ...
    def resolve(self, incident: str, who: str, note: str) -> None: ...
    def forget(self, node: str) -> bool: ...


class FleetApi:
    """The routes of one fleet daemon."""

    def __init__(self, fleet: Fleet, intake: Intake, token: str) -> None:
        self._fleet = fleet
        self._intake = intake
        self._token = token
        self._exposition = FleetExposition(lambda: fleet.board)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route(PATH, self._intake.endpoint, methods=["POST"]),
                Route("/", self.page),
                Route("/metrics", self.metrics),
                Route("/healthz", self.healthz),
                Route("/nodes", self.nodes),
                Route("/nodes/{node}", self.forget, methods=["DELETE"]),
                Route("/findings", self.findings),
                Route("/incidents", self.incidents),
                Route("/audit", self.audit),
                Route("/incidents/{incident}/ack", self.acknowledge, methods=["POST"]),
                Route("/incidents/{incident}/resolve", self.resolve, methods=["POST"]),
            ]
        )

    async def page(self, request: Request) -> Response:
        """The status page of the cluster."""
        return Response(status_page("fleet.html"), media_type="text/html; charset=utf-8")

    async def metrics(self, request: Request) -> Response:
        return Response(self._exposition.page(), headers={"content-type": CONTENT_TYPE})

    async def healthz(self, request: Request) -> Response:
        """200 while the store answers, else 503."""
        board = self._fleet.board
        return JSONResponse(board.health(), status_code=200 if board.healthy else 503)

    async def nodes(self, request: Request) -> Response:
        """Every node as it last spoke."""
        return await self._read(self._fleet.nodes)

    async def findings(self, request: Request) -> Response:
        """What is open, `?node=NAME` on one node."""
        return await self._read(lambda: self._fleet.findings(request.query_params.get("node", "")))

    async def audit(self, request: Request) -> Response:
        """The newest decisions of the policy, also those that were not carried out."""
        limit = request.query_params.get("limit", "")
        return await self._read(lambda: self._fleet.audit(int(limit) if limit.isdigit() else _AUDITED))

    async def incidents(self, request: Request) -> Response:
        return await self._read(self._fleet.incidents)

    async def acknowledge(self, request: Request) -> Response:
        return await self._change(request, self._fleet.acknowledge)

    async def resolve(self, request: Request) -> Response:
        return await self._change(request, self._fleet.resolve)

    async def forget(self, request: Request) -> Response:
        """Let a node go that is gone for good."""
        node = request.path_params["node"]
        return await self._guarded(request, lambda: {"known": self._fleet.forget(node)})

    async def _change(self, request: Request, change: Callable[[str, str, str], None]) -> Response:
        try:
            body = await read_body(request)
            told = msgspec.json.decode(body, type=Who) if body else Who()
        except (msgspec.DecodeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)

        def done() -> dict[str, bool]:
            change(request.path_params["incident"], told.who, told.note)
            return {"done": True}

        return await self._guarded(request, done)

    async def _guarded(self, request: Request, act: Callable[[], Any]) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            error = f"needs the token in {TOKEN_FILE} of the fleet's state directory"
            return JSONResponse({"error": error}, status_code=401)
        try:
            answer = await asyncio.wait_for(asyncio.wrap_future(self._fleet.ask(act)), timeout=10)
        except StoreAway as error:
            return JSONResponse({"error": str(error)}, status_code=503)
        except MusterError as error:
            return JSONResponse({"error": str(error)}, status_code=404)
        return JSONResponse(answer)

    async def _read(self, question: Callable[[], Any]) -> Response:
        """Asked in a thread of its own: a store that hangs holds up no node."""
        try:
            answer = await asyncio.to_thread(question)
        except StoreAway as error:
            return JSONResponse({"error": str(error)}, status_code=503)
        return Response(msgspec.json.encode(answer), media_type="application/json")
