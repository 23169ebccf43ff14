"""One life of one MCP server: from its start to its death, owned by a single task.

The SDK wants its context entered and left by the same task, and over HTTP a lost server cancels that task. So a
connection's own task holds the context and takes calls from a queue, one at a time and in order; whatever ends the task
is the server's death, and never the caller's.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from synthesis.mcp_config import ServerConfig

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult
    from mcp_types import Tool as ListedTool

Json = Any
CONNECTION_CLOSED, REQUEST_TIMEOUT = -32000, -32001
"""Error codes by which the SDK tells of a lost server and of a call that took too long."""
PING_S = 2.0
"""Seconds that a server gets for a ping after a call that took too long."""
MAX_PAGES = 100


class DeathError(Exception):
    """The server is gone, or hangs so that it has to go; the text says how that came to be known."""


class CallError(Exception):
    """A call that failed while the server lives on: by protocol error, timeout or invalid result."""


@dataclass(frozen=True)
class Launch:
    """All that is needed to start a server, with paths and environment filled in."""

    config: ServerConfig
    command: list[str]
    env: dict[str, str]
    cwd: str
    stderr: TextIO = field(repr=False)


@dataclass(frozen=True)
class _Call:
    name: str
    arguments: dict[str, Json]
    answer: "asyncio.Future[tuple[CallToolResult, float]]"


@contextlib.asynccontextmanager
async def _transport(launch: Launch) -> AsyncIterator[Any]:
    """The SDK's transport for the entry: a process, streamable HTTP, or the older SSE (`"type": "sse"`)."""
    from mcp import StdioServerParameters
    from mcp.client.sse import sse_client
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    # Some servers greet on stdout; the SDK logs a traceback for each such line and goes on well.
    logging.getLogger("mcp.client.stdio").setLevel(logging.CRITICAL)
    config = launch.config
    if config.command:
        command, *args = launch.command
        parameters = StdioServerParameters(command=command, args=args, env=launch.env, cwd=launch.cwd)
        async with stdio_client(parameters, errlog=launch.stderr) as streams:
            yield streams
    elif config.type == "sse":
        async with sse_client(config.url, headers=config.headers) as streams:
            yield streams
    else:
        async with (
            create_mcp_http_client(headers=config.headers) as http,
            streamable_http_client(config.url, http_client=http) as streams,
        ):
            yield streams


def _root_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Connection:
    """A running server. `start`, any number of `call`s, `close`; after a `DeathError` make a new one."""

    def __init__(self, launch: Launch) -> None:
        """Starts nothing yet."""
        self._launch = launch
        self._queue: asyncio.Queue[_Call | None] = asyncio.Queue()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner: asyncio.Task[None] | None = None
        self._busy = False
        self.tools: list[ListedTool] = []
        self.version = ""

    async def start(self) -> None:
        """Start the server and list its tools. Raises `DeathError` when that fails or takes more than `startup_s`."""
        self._owner = asyncio.create_task(self._own(), name=f"mcp:{self._launch.config.name}")
        limit = self._launch.config.rise.startup_s
        try:
            both: set[asyncio.Future[Any]] = {self._owner, self._ready}
            await asyncio.wait(both, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.close()
            raise
        if not self._ready.done():
            how = f"it did not answer within {limit:g} s" if not self._owner.done() else self._how_it_ended()
            await self.close()
            raise DeathError(how)

    async def call(self, name: str, arguments: dict[str, Json]) -> "tuple[CallToolResult, float]":
        """The result and its latency in ms. Raises `CallError`, or `DeathError` when the server is lost."""
        assert self._owner is not None
        answer: asyncio.Future[tuple[CallToolResult, float]] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Call(name, arguments, answer))
        try:
            both: set[asyncio.Future[Any]] = {self._owner, answer}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        if answer.done():
            return answer.result()
        raise DeathError(self._how_it_ended())

    async def close(self) -> None:
        """End the server, kindly at first; returns when its process is gone. Safe to call again."""
        if self._owner is None:
            return
        if self._ready.done() and not self._busy:
            self._queue.put_nowait(None)
        else:
            self._owner.cancel()
        await asyncio.wait({self._owner})
        if not self._owner.cancelled():
            self._owner.exception()  # known to the callers by now; unread, asyncio would print it

    def _how_it_ended(self) -> str:
        assert self._owner is not None
        if self._owner.cancelled():
            return "its connection was lost"
        error = self._owner.exception()
        if error is None:
            return "its connection was closed"
        cause = _root_cause(error)
        return str(cause) or type(cause).__name__

    async def _own(self) -> None:
        """The owner task: context, listing, then calls until `None` comes or the server is lost."""
        from mcp import Client

        async with Client(_transport(self._launch), mode="legacy") as client:
            self.version = client.server_info.version if client.server_info else ""
            await self._list(client)
            self._ready.set_result(None)
            while (call := await self._queue.get()) is not None:
                self._busy = True
                await self._answer(client, call)
                self._busy = False

    async def _list(self, client: "Client") -> None:
        cursor: str | None = None
        for _page in range(MAX_PAGES):
            listed = await client.list_tools(cursor=cursor)
            self.tools += listed.tools
            cursor = listed.next_cursor
            if not cursor:
                return
        raise DeathError(f"its tool list does not end within {MAX_PAGES} pages")

    async def _answer(self, client: "Client", call: _Call) -> None:
        """Carry out one call; leaves by an exception, which ends this life, when the server is lost."""
        from mcp import MCPError

        limit, started = self._launch.config.rise.timeout_s, time.perf_counter()
        try:
            result = await client.call_tool(call.name, call.arguments, read_timeout_seconds=limit)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise
            if error.code == REQUEST_TIMEOUT:
                await self._check_alive(client, limit)
                failure = CallError(f"no answer within {limit:g} s")
            else:
                failure = CallError(f"protocol error {error.code}: {error.message}")
            self._settle(call, failure)
        except (RuntimeError, ValueError) as error:
            self._settle(call, CallError(f"the result is not valid: {error}"))
        else:
            self._settle(call, (result, (time.perf_counter() - started) * 1000))

    async def _check_alive(self, client: "Client", limit: float) -> None:
        """After a timeout: a server that computes in its event loop answers nothing any more, and has to go."""
        try:
            await asyncio.wait_for(client.session.send_ping(), PING_S)
        except TimeoutError:
            raise DeathError(f"it hangs: no answer within {limit:g} s, nor to a ping") from None

    @staticmethod
    def _settle(call: _Call, outcome: "tuple[CallToolResult, float] | CallError") -> None:
        if call.answer.done():  # the caller was cancelled meanwhile
            return
        if isinstance(outcome, CallError):
            call.answer.set_exception(outcome)
        else:
            call.answer.set_result(outcome)
