"""One life of one MCP server: from its start to its death, owned by a single task.

The SDK wants its context entered and left by the same task, and over HTTP a lost server cancels that task. So a
connection's own task holds the context and takes jobs from a queue; whatever ends the task is the server's death, and
never the caller's. Jobs run side by side: how many, and in which order, is for the caller to decide.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from synthesis.servers.mcp_config import ServerConfig
from synthesis.servers.transports.stdio import connect

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult
    from mcp_types import Tool as ListedTool

    from synthesis.servers.transports.http import Trouble

Json = Any
CONNECTION_CLOSED, REQUEST_TIMEOUT = -32000, -32001
"""Error codes by which the SDK tells of a lost server and of a call that took too long."""
PING_S = 2.0
"""Seconds that a server gets for a ping after a call that took too long."""
MAX_PAGES = 100
NO_SCHEMA = "x-no-schema"
"""Stands in the input schema of a tool that was listed without one."""


class DeathError(Exception):
    """The server is gone, or hangs so that it has to go; the text says how that came to be known."""


class CallError(Exception):
    """A call that failed while the server lives on: by protocol error, timeout or invalid result."""


class LateError(CallError):
    """No answer in time, though the server still answers a ping."""


@dataclass(frozen=True)
class Launch:
    """All that is needed to start a server, with paths and environment filled in."""

    config: ServerConfig
    command: list[str]
    env: dict[str, str]
    cwd: str
    stderr: TextIO = field(repr=False)


@dataclass(frozen=True)
class _Job:
    run: Callable[["Client"], Awaitable[Any]]
    answer: "asyncio.Future[Any]"


@contextlib.asynccontextmanager
async def _transport(launch: Launch, trouble: "Trouble") -> AsyncIterator[Any]:
    """The SDK's streams for the entry."""
    from synthesis.servers.transports import http

    config = launch.config
    if config.command:
        async with connect(launch.command, launch.env, launch.cwd, launch.stderr) as streams:
            yield streams
    else:
        async with http.connect(config.url, config.type, config.headers, trouble) as streams:
            yield streams


def _readable(tool: Json) -> dict[str, Json]:
    """What there is to know of a listed tool, and nothing that the SDK cannot read."""
    tool = tool if isinstance(tool, dict) else {}
    kept: dict[str, Json] = {key: tool[key] for key in ("name", "description") if isinstance(tool.get(key), str)}
    hints = tool.get("annotations")
    read_only = isinstance(hints, dict) and hints.get("readOnlyHint") is True
    given = tool.get("inputSchema")
    schema = given if isinstance(given, dict) else {NO_SCHEMA: True}
    output = tool.get("outputSchema")
    kept |= {"outputSchema": output} if isinstance(output, dict) else {}
    return {"name": "", **kept, "inputSchema": schema, "annotations": {"readOnlyHint": read_only}}


def _root_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Connection:
    """A running server: `start`, any calls, `close`. After a `DeathError`, or once it has `ended`, make a new one."""

    def __init__(self, launch: Launch) -> None:
        """Starts nothing yet."""
        self._launch = launch
        self._queue: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._busy = 0
        self._trouble: Trouble | None = None
        self.tools: list[ListedTool] = []
        """As they were listed last."""
        self.version = ""
        self.ended = False
        """Closed because nobody called it for `rise.idle_s`."""
        self.stale = False
        """The server has said that its tool list changed; `relist` reads it again."""

    @property
    def forgotten(self) -> bool:
        """A remote server has lost the session and asks for a new one: its standard says to begin one."""
        return self._trouble is not None and self._trouble.forgotten

    async def start(self) -> None:
        """Start the server and list its tools. Raises `DeathError` when that fails or takes more than `startup_s`."""
        self._owner = asyncio.create_task(self._own(), name=f"mcp:{self._launch.config.name}")
        self._owner.add_done_callback(self._tell_waiting)
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
        answer: tuple[CallToolResult, float] = await self._do(lambda client: self._call(client, name, arguments))
        return answer

    async def ping(self) -> float:
        """Seconds that a ping took. Raises `DeathError` when there is no answer."""
        started = time.perf_counter()
        await self._do(self._ping)
        return time.perf_counter() - started

    async def relist(self) -> None:
        """Read the tool list again, into `tools`. Raises `CallError` or `DeathError`."""
        self.stale = False
        await self._do(self._list)

    async def close(self) -> None:
        """End the server, kindly at first; returns when its process is gone. Safe to call again."""
        if self._owner is None:
            return
        if self._ready.done() and not self._waiting and not self._busy:
            self._queue.put_nowait(None)
        else:
            self._owner.cancel()
        await asyncio.wait({self._owner})
        if not self._owner.cancelled():
            self._owner.exception()  # known to the callers by now; unread, asyncio would print it

    async def _do(self, run: Callable[["Client"], Awaitable[Any]]) -> Any:
        assert self._owner is not None
        if self._owner.done():
            raise DeathError(self._how_it_ended())
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)
        self._queue.put_nowait(_Job(run, answer))
        return await answer

    def _tell_waiting(self, _owner: "asyncio.Task[None]") -> None:
        """The life has ended: those who wait for an answer hear it."""
        for answer in list(self._waiting):
            if not answer.done():
                answer.set_exception(DeathError(self._how_it_ended()))

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
        """The owner task: context, listing, then jobs until `None` comes, nobody calls, or the server is lost."""
        from mcp import Client

        from synthesis.servers.transports.http import Trouble

        self._trouble = Trouble()
        async with Client(_transport(self._launch, self._trouble), mode="legacy", message_handler=self._hear) as client:
            self.version = client.server_info.version if client.server_info else ""
            await self._list(client)
            self._ready.set_result(None)
            async with asyncio.TaskGroup() as jobs:
                while (job := await self._next()) is not None:
                    jobs.create_task(self._carry_out(client, job))

    async def _next(self) -> _Job | None:
        """The next job; None to end. A server with memory is never ended for being idle: it would forget."""
        rise = self._launch.config.rise
        while True:
            try:
                async with asyncio.timeout(rise.idle_s if rise.state != "memory" else None):
                    return await self._queue.get()
            except TimeoutError:
                if not self._waiting and not self._busy:
                    self.ended = True
                    return None

    async def _hear(self, message: object) -> None:
        from mcp_types import ToolListChangedNotification

        self.stale = self.stale or isinstance(message, ToolListChangedNotification)

    async def _list(self, client: "Client") -> None:
        cursor: str | None = None
        found: list[ListedTool] = []
        for _page in range(MAX_PAGES):
            page, cursor = await self._page(client, cursor)
            found += page
            if cursor is None:
                self.tools = found
                return
        raise DeathError(f"its tool list does not end within {MAX_PAGES} pages")

    @staticmethod
    async def _page(client: "Client", cursor: str | None) -> "tuple[list[ListedTool], str | None]":
        """One page of the tool list and the cursor of the next, which is opaque: an empty one is one too.

        The SDK refuses a whole list for one tool whose schema it does not understand, so the answer is taken before it
        is judged, and of each tool what can be read is read. Output schemas are kept from the
        SDK, which would fetch what they refer to; `synthesis.calls.verdicts` judges by them.
        """
        from mcp_types import ListToolsResult
        from mcp_types import Tool as ListedTool

        parameters = {} if cursor is None else {"cursor": cursor}
        raw = await client.session._dispatcher.send_raw_request("tools/list", parameters, {})
        tools = raw.get("tools")
        if not isinstance(tools, list):
            raise DeathError("its tool list has no `tools`")
        read = [ListedTool.model_validate(_readable(tool), by_name=False) for tool in tools]
        known = [tool.model_copy(update={"output_schema": None}) for tool in read]
        client.session._absorb_tool_listing(ListToolsResult(tools=known), complete=False)
        following = raw.get("nextCursor")
        return read, following if isinstance(following, str) and following != cursor else None

    async def _carry_out(self, client: "Client", job: _Job) -> None:
        """Do one job; leaves by an exception, which ends this life, when the server is lost."""
        from mcp import MCPError

        self._busy += 1
        try:
            outcome = await job.run(client)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise
            self._fail(job, CallError(f"protocol error {error.code}: {error.message}"))
        except CallError as error:
            self._fail(job, error)
        else:
            if not job.answer.done():  # else the caller was cancelled meanwhile
                job.answer.set_result(outcome)
        finally:
            self._busy -= 1

    @staticmethod
    def _fail(job: _Job, error: CallError) -> None:
        if not job.answer.done():
            job.answer.set_exception(error)

    async def _call(self, client: "Client", name: str, arguments: dict[str, Json]) -> "tuple[CallToolResult, float]":
        from mcp import MCPError

        limit, started = self._launch.config.rise.timeout_s, time.perf_counter()
        try:
            result = await client.call_tool(name, arguments, read_timeout_seconds=limit)
        except MCPError as error:
            if self.forgotten:
                raise DeathError("it has lost the session") from None
            if self._trouble is not None and (trouble := self._trouble.status):
                raise DeathError(f"it cannot be reached: {trouble}") from None
            if error.code != REQUEST_TIMEOUT:
                raise
            await self._check_alive(client, limit)
            raise LateError(f"no answer within {limit:g} s") from None
        except (RuntimeError, ValueError) as error:
            raise CallError(f"the result is not valid: {error}") from None
        return result, (time.perf_counter() - started) * 1000

    async def _check_alive(self, client: "Client", limit: float) -> None:
        """After a timeout: a server that computes in its event loop answers nothing any more, and has to go."""
        try:
            await self._ping(client)
        except DeathError:
            raise DeathError(f"it hangs: no answer within {limit:g} s, nor to a ping") from None

    @staticmethod
    async def _ping(client: "Client") -> None:
        try:
            await asyncio.wait_for(client.session.send_ping(), PING_S)
        except TimeoutError:
            raise DeathError("it does not answer a ping") from None
