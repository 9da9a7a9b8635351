"""The agent of this machine, asked over its local API."""

from pathlib import Path
from typing import Any

import httpx

from daemons.config import Config
from daemons.errors import MusterError
from daemons.node.api import TOKEN_FILE
from daemons.node.state import directory, reachable

_SECONDS = 10.0


class NoAgent(MusterError):
    """No agent answers here."""


class LocalAgent:
    """The agent of node.state. Raises NoAgent when none answers, MusterError with its reason when it refuses."""

    def __init__(self, config: Config) -> None:
        self.state: Path = directory(config.node.state)
        self.url = f"http://{reachable(self.state, config.node.listen)}"

    def get(self, path: str) -> Any:
        """The JSON answer."""
        return self._ask("GET", path, {}, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to a change, with the token of the state directory."""
        return self._ask("POST", path, {"authorization": f"Bearer {self._token()}"}, body)

    def _token(self) -> str:
        path = self.state / TOKEN_FILE
        try:
            return path.read_text().strip()
        except FileNotFoundError as error:
            raise NoAgent(f"no agent keeps its state in {self.state}: start one, or set node.state") from error
        except OSError as error:
            raise MusterError(f"{path}: {error.strerror}: run this as the user of the agent") from error

    def _ask(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> Any:
        try:
            answer = httpx.request(
                method, f"{self.url}{path}", headers=headers, json=body, timeout=_SECONDS, trust_env=False
            )
        except httpx.ConnectError as error:
            raise NoAgent(f"no agent answers at {self.url}: start one (`muster node`), or set node.listen") from error
        except httpx.HTTPError as error:
            raise MusterError(f"the agent at {self.url} does not answer: {type(error).__name__}") from error
        if answer.is_success:
            return answer.json()
        try:
            why = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            why = f"status {answer.status_code}"
        raise MusterError(f"the agent at {self.url} refuses: {why}")
