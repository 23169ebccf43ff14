"""A scripted OpenAI-compatible server on loopback: faults on demand, otherwise a plausible model.

It speaks the real protocol over a real socket. What the model says is worked out in `player`.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from player import play


@dataclass(frozen=True)
class Reply:
    """What to answer: a chat completion with `content`, or a fault."""

    content: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    refusal: str | None = None
    error: dict[str, Any] | None = None
    delay_s: float = 0.0
    cut: bool = False
    """Close the connection in the middle of the body."""
    body: str | None = None
    """The raw body, instead of a completion."""
    usage: bool = True
    pause_s: float = 0.0
    """Before each piece of a stream."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that was killed is no error here
            super().handle_error(request, client_address)


class Model:
    """The server; a context manager. `script` is answered first, in order; after that the model plays along."""

    def __init__(self, script: Sequence[Reply] = (), delay_s: float = 0.0, pause_s: float = 0.0) -> None:
        self.script, self.delay_s, self.pause_s = list(script), delay_s, pause_s
        self.bodies: list[str] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "Model":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The bodies that came, in order."""
        return [json.loads(body) for body in self.bodies]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                assert self.path == "/v1/chat/completions"
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                reply = model._next(body, {name.lower(): value for name, value in self.headers.items()})
                time.sleep(reply.delay_s)
                try:
                    _send(self, reply, json.loads(body))
                except OSError:
                    self.close_connection = True  # the client was killed, or did not wait

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _next(self, body: str, headers: dict[str, str]) -> Reply:
        with self._lock:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.headers.append(headers)
            if self.script:
                return self.script.pop(0)
        return Reply(json.dumps(play(json.loads(body))), delay_s=self.delay_s, pause_s=self.pause_s)


def _send(handler: BaseHTTPRequestHandler, reply: Reply, request: dict[str, Any]) -> None:
    content: Any = reply.error or _completion(reply, request)
    streamed = bool(request.get("stream")) and reply.error is None and reply.body is None
    text = _pieces(content, request) if streamed else json.dumps(content)
    data = (reply.body if reply.body is not None else text).encode()
    kind = "text/event-stream" if streamed else "application/json"
    handler.send_response(reply.status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **reply.headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    for piece in data.split(b"\n\n") if reply.pause_s and streamed else []:
        time.sleep(reply.pause_s)
        handler.wfile.write(piece + b"\n\n" if piece else b"")
        handler.wfile.flush()
    if not (reply.pause_s and streamed):
        handler.wfile.write(data[: len(data) // 2] if reply.cut else data)
    handler.close_connection = handler.close_connection or reply.cut


def _pieces(completion: dict[str, Any], request: dict[str, Any]) -> str:
    """A completion as the events of a stream: a few letters each, the reason to stop, and the usage if asked for."""
    [choice] = completion["choices"]
    about = {key: completion[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    content, refusal = choice["message"]["content"] or "", choice["message"]["refusal"]
    deltas: list[dict[str, Any]] = [
        {"role": "assistant"},
        *({"content": content[i : i + 7]} for i in range(0, len(content), 7)),
    ]
    deltas += [{"refusal": refusal}] if refusal else []
    chunks = [{**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{**about, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}]
    if "usage" in completion and (request.get("stream_options") or {}).get("include_usage"):
        chunks += [{**about, "choices": [], "usage": completion["usage"]}]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def _completion(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.content or None, "refusal": reply.refusal}
    asked = sum(len(message["content"]) for message in request["messages"]) // 4
    told = len(reply.content) // 4 + 1
    usage = {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
        **({"usage": {**usage, "prompt_tokens_details": {"cached_tokens": asked // 2}}} if reply.usage else {}),
    }
