"""A tiny MCP server in bare JSON-RPC, for what no honest server does: hang, die, break its schema, write elsewhere."""

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

SCHEMA = {"type": "object"}
OUTPUT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
NAMES = [
    "echo",
    "count",
    "write",
    "write_late",
    "read",
    "link",
    "lock",
    "dial",
    "environment",
    "hang",
    "slow",
    "die",
    "broken",
    "refuse",
    "image",
]
count = 0


def listing(cursor: str | None) -> dict:
    """Two pages; only `echo` says that it is read-only."""
    names = NAMES[:4] if cursor is None else NAMES[4:]
    tools = [{"name": name, "inputSchema": SCHEMA} for name in names]
    for tool in tools:
        if tool["name"] == "echo":
            tool["annotations"] = {"readOnlyHint": True}
        if tool["name"] == "broken":
            tool["outputSchema"] = OUTPUT
    return {"tools": tools} | ({"nextCursor": "2"} if cursor is None else {})


def run(name: str, arguments: dict) -> str:
    """Do what the tool's name says; an exception becomes an `isError` result."""
    global count
    if name == "count":
        count += 1
        return str(count)
    if name == "write":
        Path(arguments["path"]).write_text(arguments.get("text", "x"))
    elif name == "read":
        return Path(arguments["path"]).read_text()
    elif name == "link":
        Path(arguments["path"]).symlink_to(arguments["to"])
    elif name == "lock":
        Path(arguments["path"]).chmod(0)
    elif name == "dial":
        socket.create_connection((arguments["host"], arguments["port"]), timeout=3).close()
    elif name == "environment":
        return json.dumps(dict(os.environ))
    elif name == "hang":
        time.sleep(3600)
    elif name == "slow":
        time.sleep(arguments["seconds"])
    elif name == "die":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
    return json.dumps({"arguments": arguments, "cwd": os.getcwd()})


def answer(method: str, params: dict) -> dict:
    """The result for one request."""
    if method == "initialize":
        info = {"name": "faulty", "version": "1.2.3"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return listing(params.get("cursor"))
    if method == "ping":
        return {}
    name = params["name"]
    if name == "refuse":
        raise LookupError("refused by protocol")
    if name == "image":
        return {"content": [{"type": "image", "data": "", "mimeType": "image/png"}, {"type": "text", "text": "seen"}]}
    if name == "broken":
        return {"content": [{"type": "text", "text": "{}"}], "structuredContent": {"n": "many"}}
    try:
        return {"content": [{"type": "text", "text": run(name, params.get("arguments", {}))}]}
    except Exception as error:
        return {"content": [{"type": "text", "text": f"{type(error).__name__}: {error}"}], "isError": True}


def main() -> None:
    """Serve until stdin ends; an argument picks a way to fail at the start."""
    way = sys.argv[1] if len(sys.argv) > 1 else ""
    if way == "silent":
        time.sleep(3600)
    if way == "old-sdk":
        sys.exit("ModuleNotFoundError: No module named 'mcp.server.fastmcp'")
    if way == "noisy":
        print("Welcome!", flush=True)
    if way == "marked":
        with Path(sys.argv[2]).open("a") as file:
            file.write("start ")
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        if request.get("params", {}).get("name") == "write_late":  # no answer yet, but a ping has one
            late = request["params"]["arguments"]
            threading.Timer(late["seconds"], Path(late["path"]).write_text, ["late"]).start()
            continue
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            reply["result"] = answer(request["method"], request.get("params", {}))
        except LookupError as error:
            reply["error"] = {"code": -32602, "message": str(error)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
