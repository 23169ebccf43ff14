"""Cassettes: the servers' tools and answers in one file, recorded once and replayed byte for byte without a server.

What a call answers depends on what was called before: on the sandbox's files since its last reset, and on the memory of
the server's own process. So an answer is filed under the call together with these two histories (`_History`), and under
how many times this very situation came before, because a clock or a counter may answer differently each time.
"""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pydantic import ValidationError

from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.records import Json, Record, Tool, ToolResult
from synthesis.seeds import digest

if TYPE_CHECKING:
    from synthesis.servers.mcp_config import ServersFile
    from synthesis.servers.server_set import Servers

LISTING = "listing"


class Listing(Record):
    """What was there when the recording began."""

    servers_file: str
    """Fingerprint of the servers file, its sandbox included."""
    isolation: str
    versions: dict[str, str]
    tools: dict[str, Tool]
    """By full name; only tools that may run."""
    schema_hashes: dict[str, str]


class Take(Record):
    """One line of a cassette: the listing, or the answer to one call in one situation."""

    id: str
    listing: Listing | None = None
    tool: str = ""
    result: ToolResult | None = None


class _History:
    """What the answer to the next call may depend on, as a chain of hashes over the calls so far."""

    def __init__(self, file: "ServersFile") -> None:
        self._states = {server.name: server.rise.state for server in file.servers}
        self._files = ""
        self._memories = dict.fromkeys(self._states, "")

    def key(self, tool: Tool, arguments: dict[str, Json]) -> str:
        """The call in its situation; it then belongs to the history of what comes after, unless it leaves no traces."""
        state = self._states[tool.server]
        memory = self._memories[tool.server]
        key = digest("take", tool.full_name, tool.schema_hash, arguments, self._files, memory)
        if state != "none":
            self._files = digest(self._files, tool.full_name, arguments)
        if state == "memory":
            self._memories[tool.server] = digest(memory, tool.full_name, arguments)
        return key

    def files_key(self) -> str:
        """The state that the files are in."""
        return digest("state", self._files)

    def reset(self, servers: Iterable[str]) -> None:
        """As `Servers.reset` does: files for all, memory for those named."""
        self._files = ""
        self._memories |= dict.fromkeys(servers, "")


class CassetteServers:
    """`Servers` with a cassette: `CassetteServers(path, file, Servers(file))` records; without the last, it replays.

    A recording that was stopped goes on; what it holds already is kept. Raises `UserError` for a cassette that was made
    with another servers file or sandbox, or with tools whose schema was another, and for a call that is not in it.
    """

    tools: dict[str, Tool]
    """By full name, sorted; only tools that may run."""
    refused: list[Tool]
    unusable: dict[str, str]
    """As the live servers have them; empty when they are replayed."""
    versions: dict[str, str]
    """Version string that each server reported."""
    isolation: str
    """Which isolation was in force when it was recorded, in words."""

    def __init__(self, path: Path, file: "ServersFile", live: "Servers | None" = None) -> None:
        """Opens and starts nothing yet."""
        self.path, self.file, self._live = path, file, live
        self.tools, self.versions, self.isolation = {}, {}, ""
        self.refused, self.unusable = [], {}
        self._takes: dict[str, Take] = {}
        self._history = _History(file)
        self._times: Counter[str] = Counter()

    async def __aenter__(self) -> "CassetteServers":
        """Read what the cassette holds; for a recording, start the servers too."""
        async with AsyncExitStack() as stack:
            if self._live is None:
                self._takes = _read(self.path)
            else:
                self._journal = stack.enter_context(Journal(self.path, Take))
                self._takes = {take.id: take for take in self._journal}
                self._list(await stack.enter_async_context(self._live))
                self.refused, self.unusable = self._live.refused, self._live.unusable
            listing = self._listing()
            self.tools, self.versions, self.isolation = dict(listing.tools), listing.versions, listing.isolation
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the servers, if there are any."""
        await self._stack.aclose()

    async def call(self, full_name: str, arguments: dict[str, Json]) -> ToolResult:
        """As `Servers.call`: answered by the server and recorded, or as it was recorded."""
        tool = self.tools.get(full_name)
        if tool is None:
            return ToolResult(text=f"Unknown tool: {full_name}", is_error=True)
        key = self._history.key(tool, arguments)
        self._times[key] += 1
        if self._live is None:
            return self._recorded(key, full_name, arguments)
        result = await self._live.call(full_name, arguments)
        self._keep(Take(id=f"{key}.{self._times[key]}", tool=full_name, result=result))
        return result

    async def reset(self, servers: Iterable[str]) -> None:
        """As `Servers.reset`."""
        chosen = set(servers)
        self._history.reset(chosen)
        if self._live is not None:
            await self._live.reset(chosen)

    def state(self) -> str:
        """As `Servers.state`."""
        key = self._history.files_key()
        if self._live is not None:
            self._keep(Take(id=key, result=ToolResult(text=self._live.state())))
        take = self._takes.get(key)
        if take is None or take.result is None:
            raise UserError(f"{self.path}: it does not say how the files were at this point; record it again.")
        return take.result.text

    async def give_up(self, server: str) -> None:
        """As `Servers.give_up`."""
        self.tools = {name: tool for name, tool in self.tools.items() if tool.server != server}
        if self._live is not None:
            await self._live.give_up(server)

    def last_words(self, server: str) -> str:
        """As `Servers.last_words`; a cassette knows none."""
        return self._live.last_words(server) if self._live else ""

    def _list(self, live: "Servers") -> None:
        """Begin a recording; one that goes on needs the same tools as before."""
        listing = Listing(
            servers_file=self.file.fingerprint,
            isolation=live.isolation,
            versions=live.versions,
            tools=live.tools,
            schema_hashes=_hashes(live.tools),
        )
        self._keep(Take(id=LISTING, listing=listing))
        self._check(self._listing(), live.tools)

    def _listing(self) -> Listing:
        first = self._takes.get(LISTING)
        if first is None or first.listing is None:
            raise UserError(f"{self.path}: expected a cassette, whose first line lists the tools; record one.")
        if first.listing.servers_file != self.file.fingerprint:
            raise UserError(f"{self.path}: it was recorded with another servers file or sandbox; record it again.")
        self._check(first.listing, first.listing.tools)
        return first.listing

    def _check(self, listing: Listing, tools: dict[str, Tool]) -> None:
        """Refuse tools whose schemas are not those that the answers were recorded with."""
        recorded, found = listing.schema_hashes, _hashes(tools)
        changed = sorted(name for name in {**recorded, **found} if recorded.get(name) != found.get(name))
        if changed:
            raise UserError(
                f"{self.path}: the schema of {', '.join(changed[:5])} is not the one that it was recorded with; "
                "record it again."
            )

    def _keep(self, take: Take) -> None:
        if take.id not in self._takes:
            self._journal.append(take)
            self._takes[take.id] = take

    def _recorded(self, key: str, full_name: str, arguments: dict[str, Json]) -> ToolResult:
        """The answer; where this situation came more often than when it was recorded, the last one."""
        for time in range(self._times[key], 0, -1):
            take = self._takes.get(f"{key}.{time}")
            if take is not None and take.result is not None:
                return take.result
        shown = json.dumps(arguments, ensure_ascii=False)[:200]
        raise UserError(f"{self.path}: it holds no answer to {full_name} {shown} at this point; record it again.")


def _hashes(tools: dict[str, Tool]) -> dict[str, str]:
    return {name: tool.schema_hash for name, tool in tools.items()}


def _read(path: Path) -> dict[str, Take]:
    try:
        return {take.id: take for take in map(Take.model_validate_json, path.read_bytes().splitlines())}
    except OSError as error:
        raise UserError(f"{path}: expected a cassette that can be read, but: {error.strerror}.") from None
    except ValidationError as error:
        raise UserError(f"{path}: expected a cassette, but a line is none: {error.errors()[0]['msg']}.") from None
