"""Remote servers: trouble on the way to one is waited out, and never taken for what the server has to say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

PASSING = frozenset({408, 429, 502, 503, 504})
"""Statuses that say nothing about the request, only that it may be sent again (RFC 9110, RFC 6585)."""
WAITS_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further try where the server does not say how long."""
LONGEST_S = 15.0
"""Longest wait that a server can ask for by `Retry-After`."""


@dataclass
class Trouble:
    """What went wrong on the way to a server, as far as its answers do not say it."""

    forgotten: bool = False
    """The server does not know the session any more (status 404): a client has to begin a new one."""
    status: str = ""
    """The last status of `PASSING` that stayed, or of a failure of the server's (500 and above)."""


class PatientClient(httpx2.AsyncClient):
    """Sends a request again while its answer is one of `PASSING`, and notes what else went wrong on the way.

    Proxies and certificates are those of the environment.
    """

    def __init__(self, trouble: Trouble, **options: Any) -> None:
        """Sends nothing yet; the options are those of `httpx2.AsyncClient`."""
        super().__init__(**options)
        self._trouble = trouble

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The answer, after as many tries as there are `WAITS_S`."""
        for wait in WAITS_S:
            response = await super().send(request, **options)
            if response.status_code not in PASSING:
                break
            await response.aclose()
            await asyncio.sleep(_asked_for(response.headers, wait))
        else:
            response = await super().send(request, **options)
        if response.status_code == 404 and "mcp-session-id" in request.headers:
            self._trouble.forgotten = True
        if response.status_code in PASSING or response.status_code >= 500:
            self._trouble.status = f"HTTP status {response.status_code}"
        return response


def _asked_for(headers: Mapping[str, str], otherwise: float) -> float:
    """Seconds that `Retry-After` asks for, as a number or a date."""
    asked = headers.get("retry-after", "")
    if asked.isdigit():
        return min(float(asked), LONGEST_S)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return otherwise
    return min(max((until - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_S)


@contextlib.asynccontextmanager
async def connect(url: str, kind: str, headers: dict[str, str], trouble: Trouble) -> AsyncIterator[Any]:
    """The SDK's streams for a remote server: streamable HTTP, or for the kind `sse` the older SSE."""
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import MCP_DEFAULT_SSE_READ_TIMEOUT, MCP_DEFAULT_TIMEOUT

    def client(headers: Any = None, timeout: Any = None, auth: Any = None) -> PatientClient:
        return PatientClient(trouble, headers=headers, timeout=timeout, auth=auth)

    if kind == "sse":
        async with sse_client(url, headers=headers, httpx_client_factory=client) as streams:
            yield streams
        return
    timeout = httpx2.Timeout(MCP_DEFAULT_TIMEOUT, read=MCP_DEFAULT_SSE_READ_TIMEOUT)
    async with client(headers, timeout) as http, streamable_http_client(url, http_client=http) as streams:
        yield streams
