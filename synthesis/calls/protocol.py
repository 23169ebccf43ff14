"""Who executes calls, as far as the rest of the synthesis needs to know, and how one server's calls are judged."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from synthesis.records import Json, Tool, ToolResult

if TYPE_CHECKING:
    from synthesis.servers.mcp_config import ServersFile


class Runner(Protocol):
    """The part of `synthesis.servers.server_set.Servers` that executing calls needs."""

    tools: dict[str, Tool]
    versions: dict[str, str]

    async def call(self, full_name: str, arguments: dict[str, Json]) -> ToolResult: ...

    async def reset(self, servers: Iterable[str]) -> None: ...


@dataclass(frozen=True)
class Policy:
    """What the servers file says about judging and resetting one server."""

    errors: tuple[str, ...] = ()
    keeps_memory: bool = False
    """The server holds state in its process, so that a clean start means a restart."""


def policies_of(file: "ServersFile") -> dict[str, Policy]:
    """The policies that a servers file states, by server."""
    return {entry.name: Policy(tuple(entry.rise.errors), entry.rise.state == "memory") for entry in file.servers}
