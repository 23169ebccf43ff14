"""An MCP server over stdio that lists what a JSON file says, many pages of it: `python listing.py TOOLS.json [FAULTS]`.

The first cursor is the empty string. Every call is answered with its own arguments, and after them what the first word
of the tool's name asks for: one of `CONTENT`, structured content, or how the process was started. FAULTS names calls by
their number over all lives of the server: `7:die,12:hang`.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

TOOLS = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
FAULTS = dict(part.split(":") for part in "".join(sys.argv[2:3]).split(",") if part)
PAGE = max(2, len(TOOLS) // 20)
BYTES = "iVBORw0KGgo="
CONTENT = {
    "image": {"type": "image", "data": BYTES, "mimeType": "image/png"},
    "audio": {"type": "audio", "data": BYTES, "mimeType": "audio/wav"},
    "link": {"type": "resource_link", "uri": "http://127.0.0.1:9/book", "name": "book"},
    "file": {"type": "resource", "resource": {"uri": "file:///book.txt", "text": "Call me Ishmael."}},
    "blob": {"type": "resource", "resource": {"uri": "file:///book.bin", "blob": BYTES}},
}


def meet_fault() -> None:
    counted = Path(os.environ["TMPDIR"], "calls")
    number = 1 + (len(counted.read_text()) if counted.exists() else 0)
    counted.write_text("x" * number)
    fault = FAULTS.get(str(number))
    if fault == "die":
        os._exit(3)
    if fault == "hang":
        time.sleep(3600)


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
    meet_fault()
    said = json.dumps([params["name"], params.get("arguments")], ensure_ascii=False, sort_keys=True)
    kind = params["name"].split("_")[0]
    if kind == "tell":
        said = json.dumps([sys.argv, dict(os.environ)])
    content = [{"type": "text", "text": f"done: {said}"}, *([CONTENT[kind]] if kind in CONTENT else [])]
    return {"content": content} | ({"structuredContent": {"asked": params}} if kind == "structured" else {})


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = answer(request["method"], request.get("params") or {})
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
