"""One server over all its lives: restarted when it dies or was killed as hung, and given up when it keeps dying."""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from synthesis.errors import UserError
from synthesis.records import Tool, ToolResult
from synthesis.schemas import answer_fault, fault
from synthesis.servers.mcp_config import ServerConfig
from synthesis.servers.result_text import result_text, structured
from synthesis.servers.sandbox.launcher import confine, probe
from synthesis.servers.sandbox.packages import fetches, furnish, home_of
from synthesis.servers.sandbox.workspace import Workspace, map_strings
from synthesis.servers.scrub import scrub
from synthesis.servers.session import NO_SCHEMA, CallError, Connection, DeathError, LateError, Launch

Json = Any
MAX_DEATHS, START = 30, 3
"""Deaths in a row, no call between them answered, after which the run stops; a start that fails counts for `START`."""
SIDE_BY_SIDE = 8
"""Calls that a server without state gets at a time."""
TAIL_CHARS = 800
_OLD_SDK = re.compile(r"No module named 'mcp\.server\.fastmcp|McpError|'Server' object has no attribute 'list_tools'")

_CUT_OFF = re.compile(
    r"(?i)ENOTFOUND|EAI_AGAIN|ENETUNREACH|ECONNREFUSED|getaddrinfo|name resolution|name or service not known|"
    r"network is unreachable|dns error|ConnectError|cannot connect to the docker"
)
"""What programs say that need a network and have none."""


def _blank(match: re.Match[str]) -> str:
    """The match with its first group, or all of it where there is no group, replaced by `<volatile>`."""
    start, end = match.span(1) if match.re.groups else match.span()
    return match.string[match.start() : start] + "<volatile>" + match.string[end : match.end()]


@dataclass
class _Visit:
    """A call in progress, and whether another was in progress at any moment of it."""

    accompanied: bool = False


class _Gate:
    """Lets `width` calls through at a time, in order; or one alone."""

    def __init__(self, width: int) -> None:
        self._width, self._free, self._turn = width, asyncio.Semaphore(width), asyncio.Lock()
        self._visits: list[_Visit] = []

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[_Visit]:
        async with self._free:
            visit = _Visit()
            self._visits.append(visit)
            if len(self._visits) > 1:
                for other in self._visits:
                    other.accompanied = True
            try:
                yield visit
            finally:
                self._visits.remove(visit)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as held:
            await held.enter_async_context(self._turn)
            for _ in range(self._width):
                await held.enter_async_context(self._free)
            yield


class Server:
    """One entry of the servers file, running; see `synthesis.servers.server_set.Servers`."""

    def __init__(self, config: ServerConfig, workspace: Workspace, stderr: TextIO) -> None:
        """Starts nothing yet."""
        self.config, self._workspace, self._stderr = config, workspace, stderr
        self.tools: list[Tool] = []
        """All that the server listed at its first start, whether it may run or not."""
        self.version = ""
        self.last_words = ""
        """What its last death looked like, with the end of its error output."""
        self._connection: Connection | None = None
        self._deaths = 0
        self._touched = False
        self.late = False
        """A call that took too long may still be at work in the process."""
        self._gate = _Gate(SIDE_BY_SIDE if config.rise.state == "none" else 1)
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """The first start. Raises `UserError` when the server does not start, or lists what cannot be used."""
        try:
            connection = await self._open()
        except DeathError as death:
            raise self._complaint(f"does not start: {death}", self._hint()) from None
        self.version = self._clean(connection.version)
        self.tools = self._listed(connection)

    async def call(self, tool: Tool, arguments: dict[str, Json]) -> ToolResult:
        """One call; see `Servers.call`.

        Of several calls at a time, a death or a timeout may be another one's fault: each is then repeated alone.
        """
        async with self._gate.shared() as visit:
            try:
                return await self._attempt(tool, arguments)
            except (DeathError, LateError) as failure:
                if not visit.accompanied:
                    return self._failed(failure)
        async with self._gate.alone():
            try:
                return await self._attempt(tool, arguments)
            except (DeathError, LateError) as failure:
                return self._failed(failure)

    async def ping(self) -> float:
        """Seconds that a ping takes. Raises `UserError` when there is no answer."""
        try:
            return await (await self._running()).ping()
        except (DeathError, CallError) as error:
            raise self._complaint(f"does not answer: {error}") from None

    async def forget(self) -> None:
        """End a process that may remember calls, or still be at work on one that took too long.

        A read-only mark is no proof that there is nothing to forget: the powerpoint server's `open_presentation`
        carries it, and numbers what it has opened.
        """
        async with self._gate.shared():
            if self.late or (self.config.rise.state == "memory" and self._touched):
                await self.close()

    async def revive(self) -> None:
        """Start the server again if it is down. Where that fails the next call tries again, and tells."""
        with contextlib.suppress(DeathError):
            await self._running()

    async def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    def close_log(self) -> None:
        """Close the file that holds the server's error output."""
        self._stderr.close()

    def may_run(self, tool: Tool) -> bool:
        """Whether the tool is marked read-only or allowed, and not denied."""
        options = self.config.rise
        allowed = tool.read_only or options.allow == "all" or tool.name in options.allow
        return allowed and tool.name not in options.deny

    @staticmethod
    def unusable(tool: Tool) -> str:
        """Why nothing can be called by what the server says of the tool, in one sentence; empty where it can."""
        if not tool.name:
            return "it has no name"
        if NO_SCHEMA in tool.input_schema:
            return "it has no input schema"
        if said := fault(tool.input_schema):
            return said
        if tool.input_schema.get("type") != "object":
            return "its input schema does not say `type: object`"
        return ""

    async def _attempt(self, tool: Tool, arguments: dict[str, Json], again: bool = False) -> ToolResult:
        """One try. Raises `LateError` and `DeathError`, for which another call may be to blame.

        A call that a remote server refused because it had lost the session is made once more, in a new one.
        """
        connection = await self._running()
        self._touched = True
        inner = arguments if self.config.url else self._workspace.inward(arguments)
        try:
            result, latency = await connection.call(tool.name, inner)
        except DeathError as death:
            if connection.forgotten and not again:
                if self._connection is connection:
                    await self.close()
                return await self._attempt(tool, arguments, again=True)
            await self._bury(connection, f"died in a call of {tool.name}: {death}")
            raise
        except LateError:
            self.late = True
            raise
        except CallError as failure:
            return self._failed(failure)
        self._deaths = 0
        if connection.stale:
            await connection.relist()
            self._compare(connection)
        data = map_strings(structured(result), self._clean)
        if data is not None and not result.is_error and (why := answer_fault(tool, data)):
            return self._failed(CallError(f"the result is not valid: {why}"))
        return ToolResult(
            text=self._clean(result_text(result)), is_error=bool(result.is_error), structured=data, latency_ms=latency
        )

    def _failed(self, failure: DeathError | CallError) -> ToolResult:
        died = isinstance(failure, DeathError)
        text = f"the server died: {failure}" if died else str(failure)
        return ToolResult(text=self._clean(text), is_error=True, down=died or isinstance(failure, LateError))

    async def _running(self) -> Connection:
        """The connection, a new one where the last has ended. Raises `DeathError` when the server does not start."""
        async with self._starting:
            if self._connection is not None and not self._connection.ended:
                return self._connection
            await self.close()
            try:
                connection = await self._open()
            except DeathError as death:
                self._count_death(f"does not start again: {death}", START)
                raise DeathError(f"it does not start again: {death}") from None
            self._compare(connection)
            return connection

    async def _open(self) -> Connection:
        connection = Connection(self._launch())
        await connection.start()
        self._connection, self._touched, self.late = connection, False, False
        return connection

    async def _bury(self, connection: Connection, what: str) -> None:
        """Note the end of a life, once, though several calls may have met it."""
        if self._connection is connection:
            await self.close()
            self._count_death(what)

    def _count_death(self, what: str, weight: int = 1) -> None:
        self._deaths += weight
        complaint = self._complaint(what)
        self.last_words = str(complaint)
        if self._deaths >= MAX_DEATHS:
            raise self._complaint(f"died again and again with no answer between; the last time it {what}")

    def _listed(self, connection: Connection) -> list[Tool]:
        """The tools as data: nothing hidden, no secret, not too long. A name has to be so from the start."""
        for listed in connection.tools:
            if self._clean(listed.name) != listed.name:
                raise self._complaint(f"lists a tool whose name hides something: {self._clean(listed.name)}")
        found = {}
        for listed in connection.tools:
            output = self.outward(listed.output_schema)
            found[listed.name] = Tool(
                server=self.config.name,
                name=listed.name,
                description=self.outward(listed.description or ""),
                input_schema=self.outward(listed.input_schema),
                output_schema=None if output is None or fault(output) else output,
                read_only=bool(listed.annotations and listed.annotations.read_only_hint),
            )
        return list(found.values())

    def _compare(self, connection: Connection) -> None:
        """Raise `UserError` where the tools that may run are not those of the first start any more."""
        old, new = (
            {tool.name: tool.schema_hash for tool in tools if self.may_run(tool)}
            for tools in (self.tools, self._listed(connection))
        )
        if old != new:
            changed = sorted(name for name in {**old, **new} if old.get(name) != new.get(name))
            raise self._complaint(
                f"changed its tools during the run ({', '.join(changed[:5])}), so earlier calls prove nothing about "
                "them; use a version that keeps them"
            )

    def outward(self, value: Json) -> Json:
        """`value` with paths made logical, and without secrets and hidden characters."""
        return map_strings(self._workspace.outward(value), lambda text: scrub(text, self.config.secrets))

    def _clean(self, text: str) -> str:
        text = str(self.outward(text))
        for pattern in self.config.rise.volatile:
            text = re.sub(pattern, _blank, text)
        return text

    def _launch(self) -> Launch:
        config, workspace = self.config, self._workspace
        if not config.command:
            return Launch(config, [], {}, "", self._stderr)
        command = shutil.which(config.command)
        if command is None:
            raise self._complaint(f"does not start: command {config.command} was not found, or cannot be executed")
        private = workspace.private(config.name)
        inner = [command, *workspace.inward(config.args)]
        confined = confine(inner, probe(), [workspace.data, *private.values()], config.rise.network)
        further = config.network_env if config.rise.network else self._fetched(private["home"])
        env = {**workspace.environment(config.name), **further, **workspace.inward(config.env)}
        cwd = workspace.inward(config.cwd) or str(workspace.data)
        if not os.path.isdir(cwd):
            raise self._complaint(f"does not start: its cwd {config.cwd} is no folder")
        return Launch(config, confined, env, cwd, self._stderr)

    def _fetched(self, home: Path) -> dict[str, str]:
        """Variables for a start without network, with what `rise servers prepare` has fetched in `home`."""
        config = self.config
        return furnish(home_of(config.name, config.command, config.args), home) if fetches(config.command) else {}

    def _hint(self) -> str:
        if _OLD_SDK.search(self._tail()):
            return "; it needs mcp<2: uvx --with 'mcp<2' ..., or install it into an environment with 'mcp<2'"
        if self.config.rise.network:
            return ""
        if fetches(self.config.command):
            return "; the sandbox has no network, so fetch what it runs once with `rise servers prepare` and this file"
        if _CUT_OFF.search(self._tail()):
            return "; the sandbox has no network: if it needs one, set rise.network to true"
        return ""

    def _tail(self) -> str:
        """The end of the error output. What is read is longer than what is shown, so that no secret is cut in two."""
        self._stderr.flush()
        with open(self._stderr.name, "rb") as file:
            file.seek(max(0, os.path.getsize(self._stderr.name) - 20 * TAIL_CHARS))
            return str(self.outward(file.read().decode(errors="replace").strip()))[-TAIL_CHARS:].strip()

    def _complaint(self, what: str, hint: str = "") -> UserError:
        tail = self._tail()
        said = f"; its error output ends with: {tail}" if tail else ""
        return UserError(f"server {self.config.name} {scrub(what, self.config.secrets)}{hint}{said}")
