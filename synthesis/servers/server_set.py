"""Running MCP servers: a servers file in, tools and real calls out.

Every local server runs confined (`synthesis.servers.sandbox.launcher`) in one shared throw-away folder
(`synthesis.servers.sandbox.workspace`). Only tools that a server marks read-only, or that the file allows by name,
can be called at all.
"""

import asyncio
import difflib
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from synthesis.errors import UserError
from synthesis.records import Tool, ToolResult
from synthesis.servers.mcp_config import RiseOptions, ServerConfig, ServersFile, load_servers
from synthesis.servers.sandbox.launcher import probe
from synthesis.servers.sandbox.workspace import Workspace
from synthesis.servers.scrub import MAX_CHARS
from synthesis.servers.supervisor import Server
from synthesis.servers.transports.stdio import MAX_MESSAGE

__all__ = ["RiseOptions", "ServerConfig", "Servers", "ServersFile", "load_servers"]

Json = Any
STARTS_AT_ONCE = 4


class Servers:
    """All servers of a file, running: `async with Servers(load_servers(path)) as servers`.

    Entering starts them (`UserError` when one does not start); leaving ends them and removes the sandbox.
    """

    tools: dict[str, Tool]
    """By full name, sorted; only tools that may run."""
    refused: list[Tool]
    """What the servers listed besides: neither marked read-only nor allowed, or denied."""
    unusable: dict[str, str]
    """`SERVER: TOOL` of those that might run, but whose schemas say nothing that can be used, with the reason."""
    versions: dict[str, str]
    """Version string that each server reported."""
    start_seconds: dict[str, float]
    """How long each server took to start and to list its tools."""
    isolation: str
    """Which isolation is in force, in words."""

    def __init__(self, file: ServersFile) -> None:
        """Starts nothing yet."""
        self.file = file
        self.tools, self.refused, self.versions, self.isolation = {}, [], {}, ""
        self.start_seconds, self.unusable = {}, {}
        self._servers: dict[str, Server] = {}
        self._workspace: Workspace | None = None

    async def __aenter__(self) -> "Servers":
        """Prepare the sandbox, start the servers, list their tools."""
        isolation = probe()
        self.isolation = isolation.describe()
        online = [config.name for config in self.file.servers if config.url or config.rise.network]
        if online:
            self.isolation += f"; with network: {', '.join(online)}"
        self.isolation += f"; results cut at {MAX_CHARS} characters, messages over {MAX_MESSAGE >> 20} MiB refused"
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

        async def start(server: Server) -> None:
            async with gate:
                started = time.perf_counter()
                await server.start()
                self.start_seconds[server.config.name] = time.perf_counter() - started

        logs = workspace.root / "logs"
        logs.mkdir()
        for index, config in enumerate(self.file.servers):
            log = open(logs / f"{index}.txt", "w", encoding="utf-8")  # noqa: SIM115
            self._servers[config.name] = Server(config, workspace, log)
        outcomes = await asyncio.gather(*map(start, self._servers.values()), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        for server in self._servers.values():
            self.versions[server.config.name] = server.version
            self._admit(server)
        self.tools = dict(sorted(self.tools.items()))

    def _admit(self, server: Server) -> None:
        """Enter the tools that may run, and refuse consent for tools that do not exist."""
        config, options = server.config, server.config.rise
        names = [tool.name for tool in server.tools]
        for key, given in (("allow", options.allow), ("deny", options.deny)):
            for name in given if isinstance(given, list) else []:
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    guess = f" (did you mean {near[0]}?)" if near else ""
                    raise UserError(f"{self.file.path}: {config.name}.rise.{key}: the server has no tool {name}{guess}")
        for tool in server.tools:
            if not server.may_run(tool):
                self.refused.append(tool)
            elif why := server.unusable(tool):
                self.unusable[f"{config.name}: {tool.name}"] = why
            elif tool.full_name in self.tools:
                self.unusable[f"{config.name}: {tool.name}"] = f"another tool is called {tool.full_name} already"
            else:
                self.tools[tool.full_name] = tool

    async def call(self, full_name: str, arguments: dict[str, Json]) -> ToolResult:
        """Really call a tool. A failure of any kind is a `ToolResult` with `is_error`.

        Calls of one server go one at a time, in order, or up to `supervisor.SIDE_BY_SIDE` at a time where its state is
        "none"; calls of different servers go side by side. After a timeout the server has to answer a ping or is
        restarted, as is one that died; `down` then marks the result of the call that did it.

        Raises `UserError` when a server died `supervisor.MAX_DEATHS` times with no answer between, or has changed the
        tools that may run.
        """
        tool = self.tools.get(full_name)
        if tool is None:
            return ToolResult(text=f"Unknown tool: {full_name}", is_error=True)
        return await self._servers[tool.server].call(tool, arguments)

    async def ping(self, server: str) -> float:
        """Seconds that a ping of the server takes. Raises `UserError` when there is no answer."""
        return await self._servers[server].ping()

    def last_words(self, server: str) -> str:
        """What the server's last death looked like, with the end of its error output; empty if it never died."""
        return self._servers[server].last_words

    async def give_up(self, server: str) -> None:
        """End the server for good: its tools are not there any more."""
        self.tools = {name: tool for name, tool in self.tools.items() if tool.server != server}
        await self._servers[server].close()

    async def reset(self, servers: Iterable[str]) -> None:
        """Bring the sandbox back to its first state, and give touched servers with state "memory" a fresh process.

        So any server whose last call took too long: it would go on in the clean sandbox.
        """
        assert self._workspace is not None
        wanted = {*servers, *(name for name, server in self._servers.items() if server.late)}
        chosen = [self._servers[name] for name in sorted(wanted)]
        await asyncio.gather(*(server.forget() for server in chosen))
        self._workspace.reset()  # while they are down: a server may read files as it starts
        await asyncio.gather(*(server.revive() for server in chosen))

    def state(self) -> str:
        """Digest of how the sandbox's files differ from their first state; empty where they do not."""
        assert self._workspace is not None
        return self._workspace.state()
