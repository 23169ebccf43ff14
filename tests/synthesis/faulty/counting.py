"""An MCP server on the SDK that answers calls side by side, and says how many it had at a time."""

import asyncio
import json
import os
import resource

from mcp.server.mcpserver import MCPServer

server = MCPServer("counting", version="1.0")
running = calls = 0


@server.tool()
async def wait(name: str) -> str:
    """Answer a little later; `die` ends the process."""
    global running, calls
    calls += 1
    number, running = calls, running + 1
    at_a_time = running
    for _ in range(20):
        await asyncio.sleep(0.01)
        at_a_time = max(at_a_time, running)
    if name == "die":
        os._exit(1)
    running -= 1
    return json.dumps({"name": name, "number": number, "at_a_time": at_a_time})


@server.tool()
def limits() -> str:
    """The soft limits of this process."""
    names = ("CPU", "DATA", "FSIZE", "NOFILE", "CORE")
    return json.dumps({name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names})


@server.tool()
def grab(gigabytes: int) -> str:
    """Ask for memory, without touching it."""
    return f"got {len(bytearray(gigabytes << 30)) >> 30}"


server.run()
