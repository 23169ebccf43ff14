"""The servers of a run, started as many times as they are to work side by side, live or from a cassette."""

from contextlib import AsyncExitStack
from pathlib import Path

from synthesis.progress import Progress, silent
from synthesis.servers.cassettes import CassetteServers
from synthesis.servers.mcp_config import ServersFile
from synthesis.servers.server_set import Servers


async def start_pool(
    file: ServersFile,
    running: AsyncExitStack,
    *,
    sets: int,
    record: Path | None = None,
    replay: Path | None = None,
    progress: Progress = silent,
) -> list[Servers | CassetteServers]:
    """Start `sets` sets of the servers, each with a sandbox of its own; leaving `running` ends them.

    With a cassette, to `record` or to `replay`, one set works alone, so that the calls come in one order.
    """
    if (cassette := record or replay) is not None:
        live = Servers(file) if record is not None else None
        servers = await running.enter_async_context(CassetteServers(cassette, file, live))
        progress(1, 1, "sets started")
        return [servers]
    pool: list[Servers | CassetteServers] = []
    for number in range(1, sets + 1):
        pool.append(await running.enter_async_context(Servers(file)))
        progress(number, sets, "sets started")
    return pool
