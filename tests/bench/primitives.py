"""Primitives a second: our path beside a bare loop of the mcp SDK on the same calls and the same servers.

    python tests/bench/primitives.py

Ours is `synthesis.calls.primitives.collect` with the offline author on most of the shipped servers: sandboxed
processes, a clean sandbox before each call, repeats that test determinism, verdicts and the journal included. Every
call that it makes is noted, in order. The bare loop then starts the same servers without a sandbox, through the SDK's
own stdio client, and makes the very same calls one after the other: no resets, no checks, nothing written. Starting
servers is counted for neither.

Two ratios come out: calls a second, for the same calls; and primitives a second, where the bare loop is granted one
call for each candidate that ours took into the journal, without repeats and setups.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
SERVERS = ROOT / "recipes" / "tiny" / "mcp.json"
CHOSEN = ("time", "git", "excel", "sqlite", "units", "calculator", "chess")
"""With a server that has memory (chess), so that restarts count; word and powerpoint would take too long here."""
PER_TOOL = 8

from synthesis.authors.offline.author import OfflineAuthor  # noqa: E402
from synthesis.calls.primitives import collect  # noqa: E402
from synthesis.calls.protocol import Policy  # noqa: E402
from synthesis.journal import Journal  # noqa: E402
from synthesis.records import Primitive, ToolResult  # noqa: E402
from synthesis.servers.sandbox.workspace import map_strings  # noqa: E402
from synthesis.servers.server_set import Servers, ServersFile, load_servers  # noqa: E402

Call = tuple[str, str, dict[str, Any]]


class Noting(Servers):
    """Servers that note what they are asked, and how long resets take."""

    calls: list[Call]
    resets_s = 0.0
    resets = 0

    async def call(self, full_name: str, arguments: dict[str, Any]) -> ToolResult:
        tool = self.tools[full_name]
        self.calls.append((tool.server, tool.name, arguments))
        return await super().call(full_name, arguments)

    async def reset(self, servers: Any) -> None:
        started = time.perf_counter()
        await super().reset(servers)
        self.resets_s += time.perf_counter() - started
        self.resets += 1


def chosen() -> ServersFile:
    """The servers file with the servers of the benchmark only."""
    file = load_servers(SERVERS)
    return file.model_copy(update={"servers": [entry for entry in file.servers if entry.name in CHOSEN]})


async def ours(sets: int, folder: Path) -> tuple[float, list[Noting], Journal[Primitive]]:
    """Seconds that `collect` takes with so many sets of servers."""
    file = chosen()
    policies = {entry.name: Policy(tuple(entry.rise.errors), entry.rise.state == "memory") for entry in file.servers}
    async with AsyncExitStack() as running:
        pool = [await running.enter_async_context(Noting(file)) for _ in range(sets)]
        for servers in pool:
            servers.calls = []
        journal = Journal(folder / f"{sets}.jsonl", Primitive)
        started = time.perf_counter()
        await collect(pool, policies, OfflineAuthor(), journal, per_tool=PER_TOOL, seed=0)
        return time.perf_counter() - started, pool, journal


async def bare(calls: list[Call], folder: Path) -> float:
    """Seconds that the SDK takes for the calls, each server's context entered once."""
    from mcp import Client, MCPError, StdioServerParameters
    from mcp.client.stdio import stdio_client

    file = chosen()
    data = folder / "data"
    shutil.copytree(file.template, data)  # type: ignore[arg-type]
    home = {"HOME": str(folder), "TZ": "UTC"}

    def inward(value: Any) -> Any:
        return map_strings(value, lambda text: text.replace("/data", str(data)))

    with open(folder / "stderr.txt", "w") as errors:
        async with AsyncExitStack() as running:
            clients = {}
            for entry in file.servers:
                parameters = StdioServerParameters(
                    command=entry.command, args=inward(entry.args), env={**home, **entry.env}, cwd=data
                )
                client = Client(stdio_client(parameters, errlog=errors), mode="legacy")
                clients[entry.name] = await running.enter_async_context(client)
                await clients[entry.name].list_tools()
            started = time.perf_counter()
            for server, tool, arguments in calls:
                with suppress(MCPError, RuntimeError):
                    await clients[server].call_tool(tool, inward(arguments), read_timeout_seconds=20)
            return time.perf_counter() - started


def main() -> None:
    """Run all three, print the figures and the ratios."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        two_s, two, journal = asyncio.run(ours(2, folder))
        one_s, one, _ = asyncio.run(ours(1, folder))
        calls = one[0].calls
        bare_s = asyncio.run(bare(calls, folder))
    finally:
        shutil.rmtree(folder)
    primitives = len(journal)
    per_call = bare_s / len(calls)
    print(f"{primitives} primitives, {len(calls)} calls, {len({call[:2] for call in calls})} tools")
    print(f"{'':24}{'seconds':>9}{'calls/s':>9}{'primitives/s':>14}{'in resets':>11}")
    both = sum(len(servers.calls) for servers in two)
    rows = (
        ("bare SDK loop", bare_s, len(calls), 1 / per_call, 0.0),
        ("ours, one set", one_s, len(calls), primitives / one_s, one[0].resets_s),
        (
            "ours, two sets (default)",
            two_s,
            both,
            primitives / two_s,
            sum(s.resets_s for s in two),
        ),
    )
    for name, seconds, count, rate, resets in rows:
        print(f"{name:24}{seconds:9.1f}{count / seconds:9.1f}{rate:14.1f}{resets:10.1f}s")
    for name, seconds in (("one set", one_s), ("two sets", two_s)):
        same, single = bare_s / seconds, per_call * primitives / seconds
        print(f"ratio, {name}: {same:.2f} for the same calls, {single:.2f} against one call a primitive")
    print(f"{one[0].resets} resets with one set")


if __name__ == "__main__":
    main()
