"""The JSON webhook: one POST a message to whatever a site runs; the id lets the receiver drop what comes twice."""

import contextlib
from collections.abc import Iterator

import httpx

from daemons.alerts.posts import Outcome, Post, Result, Thread
from daemons.alerts.slack import retry_after

TIMEOUT_SECONDS = 10.0
_AGAIN = frozenset({408, 425, 429})
_UNFIT = frozenset({400, 413, 422})


class WebhookSender:
    """POST with `Idempotency-Key: <id of the message>` and, where there is one, a bearer token."""

    pace = 0.0

    def __init__(self, url: str, token: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self.asked = url
        self._token = token
        self._timeout = timeout

    def send(self, post: Post, thread: Thread | None) -> Outcome:
        """Send it: any 2xx is taken as received."""
        headers = {"content-type": "application/json", "idempotency-key": post.message}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        try:
            with self._client() as client:
                answer = client.post(self.asked, content=post.body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            return Outcome(result=Result.LATER, reason=f"webhook not reached: {type(error).__name__}")
        except httpx.HTTPError as error:
            return Outcome(result=Result.UNSURE, reason=f"no answer from the webhook: {type(error).__name__}")
        return _meant(answer)

    def find(self, post: Post, thread: Thread | None) -> Outcome:
        """The receiver knows a message it has by its id, so it is simply sent again."""
        return Outcome(result=Result.MISSING)

    @contextlib.contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        # A connection a message: they are rare, and one kept open would be closed behind our back.
        with httpx.Client(timeout=self._timeout, follow_redirects=False) as client:
            yield client


def _meant(answer: httpx.Response) -> Outcome:
    status = answer.status_code
    if answer.is_success:
        return Outcome(result=Result.SENT)
    if status in _AGAIN:
        wait = retry_after(answer.headers.get("retry-after"))
        return Outcome(result=Result.LATER, reason=f"webhook answered {status}", wait=wait)
    if status >= 500:
        return Outcome(result=Result.UNSURE, reason=f"webhook answered {status}")
    if status in _UNFIT:
        return Outcome(result=Result.UNFIT, reason=f"webhook refuses the message: {status}")
    remedy = {401: "set MUSTER_WEBHOOK_TOKEN", 403: "set MUSTER_WEBHOOK_TOKEN", 404: "mend alerts.webhook.url"}
    said = remedy.get(status, "mend alerts.webhook.url")
    return Outcome(result=Result.REFUSED, reason=f"webhook answered {status}: {said}")
