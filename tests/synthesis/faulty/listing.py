"""An MCP server over stdio that lists what a JSON file says, two tools a page: `python listing.py TOOLS.json`.

The first cursor is the empty string. Every call is answered with its own arguments.
"""

import json
import sys
from pathlib import Path
from typing import Any

TOOLS = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
PAGE = 2


def page(cursor: str | None) -> dict[str, Any]:
    start = 0 if cursor is None else int(cursor or PAGE)
    following = start + PAGE
    more = {"nextCursor": "" if start == 0 else str(following)} if following < len(TOOLS) else {}
    return {"tools": TOOLS[start:following], **more}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        info = {"name": "listing", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return page(params.get("cursor"))
    said = json.dumps([params["name"], params.get("arguments")], ensure_ascii=False, sort_keys=True)
    return {"content": [{"type": "text", "text": f"done: {said}"}]}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = answer(request["method"], request.get("params") or {})
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
