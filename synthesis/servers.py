"""Running MCP servers: a servers file in, tools and real calls out.

Every local server runs confined (`synthesis.sandbox`) in one shared throw-away folder (`synthesis.workspace`). Only
tools that a server marks read-only, or that the file allows by name, can be called at all.
"""

import asyncio
import difflib
import os
import re
import shutil
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from synthesis.connection import CallError, Connection, DeathError, Launch
from synthesis.errors import UserError
from synthesis.mcp_config import RiseOptions, ServerConfig, ServersFile, load_servers
from synthesis.records import Tool, ToolResult
from synthesis.sandbox import confine, probe
from synthesis.workspace import Workspace, map_strings

if TYPE_CHECKING:
    from mcp_types import CallToolResult

__all__ = ["RiseOptions", "ServerConfig", "Servers", "ServersFile", "load_servers"]

Json = Any
MAX_DEATHS = 3
STARTS_AT_ONCE = 4
TAIL_CHARS = 800
_DOWNLOADER = re.compile(r"(^|/)(uvx?|npx?|pnpx?|bunx?|pipx|docker)$")
_OLD_SDK = re.compile(r"No module named 'mcp\.server\.fastmcp|McpError|'Server' object has no attribute 'list_tools'")


def _text(result: "CallToolResult") -> str:
    """The blocks of a result as one text; what is not text is named by its kind."""
    parts = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "resource":
            parts.append(getattr(block.resource, "text", f"[resource {block.resource.uri}]"))
        elif block.type == "resource_link":
            parts.append(f"[resource {block.uri}]")
        else:
            parts.append(f"[{block.type} {block.mime_type}]")
    return "\n".join(parts)


def _blank(match: re.Match[str]) -> str:
    """The match with its first group, or all of it where there is no group, replaced by `<volatile>`."""
    start, end = match.span(1) if match.re.groups else match.span()
    return match.string[match.start() : start] + "<volatile>" + match.string[end : match.end()]


class _Server:
    """One server over all its lives: restarts it when it dies, and gives up at the third death."""

    def __init__(self, config: ServerConfig, workspace: Workspace, stderr: TextIO) -> None:
        self.config, self._workspace, self._stderr = config, workspace, stderr
        self._connection: Connection | None = None
        self._deaths = 0
        self._touched = False
        self._lock = asyncio.Lock()

    async def start(self) -> Connection:
        """A running connection; raises `UserError` when the server does not start."""
        connection = Connection(self._launch())
        try:
            await connection.start()
        except DeathError as death:
            hint = ""
            if _OLD_SDK.search(self._tail()):
                hint = "; it needs mcp<2: uvx --with 'mcp<2' ..., or install it into an environment with 'mcp<2'"
            elif self.config.command and not self.config.rise.network and _DOWNLOADER.search(self.config.command):
                hint = "; the sandbox has no network, so if it has to download something set rise.network to true"
            raise self._complaint(f"does not start: {death}", hint) from None
        self._connection, self._touched = connection, False
        return connection

    async def call(self, tool: Tool, arguments: dict[str, Json]) -> ToolResult:
        """One call; see `Servers.call`. A read-only mark is no proof that there is nothing to forget.

        (The powerpoint server's `open_presentation` carries it, and numbers what it has opened.)
        """
        async with self._lock:
            connection = self._connection or await self.start()
            self._touched = True
            inner = arguments if self.config.url else self._workspace.inward(arguments)
            try:
                result, latency = await connection.call(tool.name, inner)
            except CallError as failure:
                return ToolResult(text=self._clean(str(failure)), is_error=True)
            except DeathError as death:
                await self._bury(f"died in a call of {tool.name}: {death}")
                return ToolResult(text=self._clean(f"the server died: {death}"), is_error=True)
        structured = map_strings(result.structured_content, self._clean)
        return ToolResult(
            text=self._clean(_text(result)), is_error=bool(result.is_error), structured=structured, latency_ms=latency
        )

    async def forget(self) -> bool:
        """End a process that may remember calls; True when it has to be started again."""
        async with self._lock:
            if self.config.rise.state == "memory" and self._touched:
                await self.close()
        return self._connection is None

    async def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    def close_log(self) -> None:
        """Close the file that holds the server's error output."""
        self._stderr.close()

    async def _bury(self, what: str) -> None:
        await self.close()
        self._deaths += 1
        if self._deaths >= MAX_DEATHS:
            raise self._complaint(f"was given up after {MAX_DEATHS} deaths; the last time it {what}")

    def outward(self, value: Json) -> Json:
        """`value` with paths made logical and secrets cut out."""
        return map_strings(self._workspace.outward(value), self.config.redact)

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
        env = {**workspace.environment(config.name), **workspace.inward(config.env)}
        cwd = workspace.inward(config.cwd) or str(workspace.data)
        if not os.path.isdir(cwd):
            raise self._complaint(f"does not start: its cwd {config.cwd} is no folder")
        return Launch(config, confined, env, cwd, self._stderr)

    def _tail(self) -> str:
        self._stderr.flush()
        with open(self._stderr.name, "rb") as file:
            file.seek(max(0, os.path.getsize(self._stderr.name) - TAIL_CHARS))
            return str(self.outward(file.read().decode(errors="replace").strip()))

    def _complaint(self, what: str, hint: str = "") -> UserError:
        tail = self._tail()
        said = f"; its error output ends with: {tail}" if tail else ""
        return UserError(f"server {self.config.name} {self.config.redact(what)}{hint}{said}")


class Servers:
    """All servers of a file, running: `async with Servers(load_servers(path)) as servers`.

    Entering starts them (`UserError` when one does not start); leaving ends them and removes the sandbox.
    """

    tools: dict[str, Tool]
    """By full name, sorted; only tools that may run."""
    versions: dict[str, str]
    """Version string that each server reported."""
    isolation: str
    """Which isolation is in force, in words."""

    def __init__(self, file: ServersFile) -> None:
        """Starts nothing yet."""
        self.file = file
        self.tools, self.versions, self.isolation = {}, {}, ""
        self._servers: dict[str, _Server] = {}
        self._workspace: Workspace | None = None

    async def __aenter__(self) -> "Servers":
        """Prepare the sandbox, start the servers, list their tools."""
        isolation = probe()
        self.isolation = isolation.describe()
        online = [config.name for config in self.file.servers if config.url or config.rise.network]
        if online:
            self.isolation += f"; with network: {', '.join(online)}"
        workspace = Workspace(self.file.template, self.file.setup, isolation)
        self._workspace = workspace.__enter__()
        try:
            await self._start_all(workspace)
            workspace.settle()  # what servers write as they start, say an empty database, stays
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the servers and remove the sandbox."""
        await asyncio.gather(*(server.close() for server in self._servers.values()))
        for server in self._servers.values():
            server.close_log()
        if self._workspace is not None:
            self._workspace.__exit__()

    async def _start_all(self, workspace: Workspace) -> None:
        gate = asyncio.Semaphore(STARTS_AT_ONCE)

        async def start(server: _Server) -> Connection:
            async with gate:
                return await server.start()

        logs = workspace.root / "logs"
        logs.mkdir()
        for index, config in enumerate(self.file.servers):
            log = open(logs / f"{index}.txt", "w", encoding="utf-8")  # noqa: SIM115
            self._servers[config.name] = _Server(config, workspace, log)
        outcomes = await asyncio.gather(*map(start, self._servers.values()), return_exceptions=True)
        for server, outcome in zip(self._servers.values(), outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            self.versions[server.config.name] = outcome.version
            self._admit(server, outcome)
        self.tools = dict(sorted(self.tools.items()))

    def _admit(self, server: _Server, connection: Connection) -> None:
        """Enter the tools that may run, and refuse consent for tools that do not exist."""
        config, options = server.config, server.config.rise
        names = [tool.name for tool in connection.tools]
        for key, given in (("allow", options.allow), ("deny", options.deny)):
            for name in given if isinstance(given, list) else []:
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    guess = f" (did you mean {near[0]}?)" if near else ""
                    raise UserError(f"{self.file.path}: {config.name}.rise.{key}: the server has no tool {name}{guess}")
        for listed in connection.tools:
            read_only = bool(listed.annotations and listed.annotations.read_only_hint)
            allowed = read_only or options.allow == "all" or listed.name in options.allow
            if not allowed or listed.name in options.deny:
                continue
            tool = Tool(
                server=config.name,
                name=listed.name,
                description=server.outward(listed.description or ""),
                input_schema=server.outward(listed.input_schema),
                output_schema=server.outward(listed.output_schema),
                read_only=read_only,
            )
            if tool.full_name in self.tools:
                raise UserError(f"{self.file.path}: {config.name}: two tools would both be called {tool.full_name}")
            self.tools[tool.full_name] = tool

    async def call(self, full_name: str, arguments: dict[str, Json]) -> ToolResult:
        """Really call a tool. A failure of any kind is a `ToolResult` with `is_error`.

        Calls of one server go one at a time, in order; calls of different servers go side by side. After a timeout the
        server has to answer a ping or is restarted. Raises `UserError` at a server's third death.
        """
        tool = self.tools.get(full_name)
        if tool is None:
            return ToolResult(text=f"Unknown tool: {full_name}", is_error=True)
        return await self._servers[tool.server].call(tool, arguments)

    async def reset(self, servers: Iterable[str]) -> None:
        """Bring the sandbox back to its first state, and give touched servers with state "memory" a fresh process."""
        assert self._workspace is not None
        chosen = [self._servers[name] for name in sorted(set(servers))]
        ended = await asyncio.gather(*(server.forget() for server in chosen))
        self._workspace.reset()  # while they are down: a server may read files as it starts
        await asyncio.gather(*(server.start() for server, is_down in zip(chosen, ended, strict=True) if is_down))
