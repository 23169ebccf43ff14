"""A real MCP server over HTTP, with a tool that kills it: `python remote.py PORT`."""

import os
import sys

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("remote", version="7.0")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def whoami(context: Context) -> str:
    """What the request's header says."""
    header = context.headers["authorization"]
    return f"you are {header}, token {header.split()[1]}"


@server.tool()
def die() -> str:
    """End the process in the middle of the call."""
    os._exit(1)


server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
