"""A remote MCP server behind a bad gateway, streamable HTTP with JSON answers: `python gateway.py PORT [FAULT,...]`.

The faults go round: each call of a tool meets the next one. `ok` answers, `lost` forgets the session, a number is a
status. `find` says what it was asked for; the text of `count` is how many calls were answered.
"""

import itertools
import json
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = itertools.cycle(sys.argv[2].split(",") if len(sys.argv) > 2 else ["ok"])
WORDS = {"type": "string", "description": "For example 'Emma', 'Dune', 'Kim' or 'Molloy'"}
FIND = {"type": "object", "properties": {"title": WORDS}, "required": ["title"]}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
sessions: set[str] = set()
answered = itertools.count(1)


def listed() -> list[dict[str, Any]]:
    marks = {"annotations": {"readOnlyHint": True}}
    tools = [
        {"name": name, "description": f"{name} a book.", "inputSchema": FIND, **marks} for name in ("find", "lend")
    ]
    return [*tools, {"name": "count", "description": "Count calls.", "inputSchema": NOTHING, **marks}]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send(self, status: int, body: Any = None, **headers: str) -> None:
        data = json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        kind = "application/json" if body is not None else "text/html"
        for name, value in {"content-type": kind, "content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.send(405)

    def do_DELETE(self) -> None:
        self.send(200)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        session = self.headers.get("mcp-session-id")
        if request["method"] == "initialize":
            sessions.add(session := uuid.uuid4().hex)
            info = {"name": "gateway", "version": "1"}
            version = request["params"]["protocolVersion"]
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
            return self.answer(request, result, mcp_session_id=session)
        if "id" not in request:
            return self.send(202)
        fault = next(FAULTS) if request["method"] == "tools/call" else "ok"
        if fault == "lost":
            sessions.discard(str(session))
        if session not in sessions:
            error = {"code": -32001, "message": "Session not found"}
            return self.send(404, {"jsonrpc": "2.0", "id": None, "error": error})
        if fault.isdigit():
            return self.send(int(fault), retry_after="0")
        return self.answer(request, self.result(request))

    def result(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["method"] == "tools/list":
            return {"tools": listed()}
        if request["method"] == "ping":
            return {}
        name, arguments = request["params"]["name"], request["params"].get("arguments") or {}
        text = str(next(answered)) if name == "count" else f"{name}: {arguments.get('title')}"
        return {"content": [{"type": "text", "text": text}]}

    def answer(self, request: dict[str, Any], result: dict[str, Any], **headers: str) -> None:
        self.send(200, {"jsonrpc": "2.0", "id": request["id"], "result": result}, **headers)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
