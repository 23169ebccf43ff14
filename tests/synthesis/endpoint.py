"""A scripted OpenAI-compatible server on loopback: faults on demand, otherwise a plausible model.

It speaks the real protocol over a real socket. What it answers is worked out from the data in the prompt, for tools
that take units, numbers, times and time zones.
"""

import json
import random
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from synthesis.values import say, spaced

ZONES = ["Europe/Oslo", "Asia/Tokyo", "America/Lima", "Africa/Cairo", "Europe/Rome", "Asia/Kolkata", "America/Bogota"]
BLOCK = re.compile(r'<data name="(\w+)">\n(.*?)\n</data>', re.DOTALL)


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


class Model:
    """The server; a context manager. `script` is answered first, in order; after that the model plays along."""

    def __init__(self, script: Sequence[Reply] = (), delay_s: float = 0.0) -> None:
        self.script, self.delay_s = list(script), delay_s
        self.bodies: list[str] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
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
        return Reply(json.dumps(play(json.loads(body))), delay_s=self.delay_s)


def _send(handler: BaseHTTPRequestHandler, reply: Reply, request: dict[str, Any]) -> None:
    content: Any = reply.error or _completion(reply, request)
    data = (reply.body if reply.body is not None else json.dumps(content)).encode()
    handler.send_response(reply.status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **reply.headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2] if reply.cut else data)
    handler.close_connection = handler.close_connection or reply.cut


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


def play(request: dict[str, Any]) -> dict[str, Any]:
    """Answer as a model would, from the data in the prompt; the same request gets the same answer."""
    text = request["messages"][1]["content"]
    data = {name: json.loads(block) for name, block in BLOCK.findall(text)}
    rng = random.Random(text)
    name = request["response_format"]["json_schema"]["name"]
    if name == "candidates":
        return _candidates(data["tool"], rng)
    if name == "compose":
        return _compose(data, text, rng)
    if name == "objection":
        return {"agrees": rng.random() < 0.9, "reason": "the request leaves open which tool is meant"}
    return _alternatives(data["parameter"], rng)


def _value(name: str, schema: dict[str, Any], rng: random.Random) -> Any:
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if schema.get("type") in ("number", "integer"):
        return rng.randint(2, 90)
    return f"{rng.randint(10, 23)}:{rng.randint(10, 59)}" if name == "time" else rng.choice(ZONES)


def _candidates(tool: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    properties = tool["parameters"]["properties"]
    calls = [{name: _value(name, schema, rng) for name, schema in properties.items()} for _ in range(8)]
    return {"calls": [{"coverage": "all", "arguments": json.dumps(call)} for call in calls]}


def _compose(data: dict[str, Any], text: str, rng: random.Random) -> dict[str, Any]:
    twist = "ruled_out" if "rule it out" in text else "correction" if "then corrects it" in text else ""
    critical, clauses, ruled_out = [], [], []
    for step in data["steps"]:
        clause = spaced(step["tool"].split("__")[1]) + " with"
        for name, argument in step["arguments"].items():
            if argument["source"] != "user":
                clause += f" that {spaced(name)},"
                continue
            value = argument["value"]
            if twist and not ruled_out:
                wrong = value + 1 if isinstance(value, int | float) else "Asia/Seoul"
                clause += f" {spaced(name)} not {say(wrong)} but"
                place = {"step": step["step"], "parameter": name}
                spelt = wrong if isinstance(wrong, str) else json.dumps(wrong)
                ruled_out.append({**place, "value": spelt, "evidence": f"not {say(wrong)}"})
            words = f"{spaced(name)} {say(value)}"
            clause += f" {words},"
            critical.append({"step": step["step"], "parameter": name, "evidence": words})
        clauses.append(clause.rstrip(","))
    greeting = rng.choice(["Please", "Could you", "I need you to", "Now"])
    return {
        "request": f"{greeting} {'; then '.join(clauses)}. {_branches(data)}".strip(),
        "intentions": clauses,
        "critical": critical,
        "ruled_out": ruled_out,
        "response": f"Done: {data['steps'][-1]['result'][:40]}",
    }


def _branches(data: dict[str, Any]) -> str:
    if "condition" not in data:
        return ""
    condition = data["condition"]
    told = [
        ", ".join(f"{spaced(name)} {say(value)}" for name, value in condition[branch]["arguments"].items())
        for branch in ("then", "else")
    ]
    return f"If the first result mentions {condition['value']}, go on with {told[0]}, otherwise with {told[1]}."


def _alternatives(parameter: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    value = parameter["value"]
    if isinstance(value, int | float):
        others = [("co_hyponym", value + 1), ("irrelevance", value * 10 + 7), ("lexical_similarity", value + 10)]
        found = [{"kind": kind, "value": json.dumps(other)} for kind, other in others]
    else:
        pool = [other for other in parameter["schema"].get("enum", [*ZONES, "09:15", "18:40"]) if other != value]
        found = [{"kind": "co_hyponym", "value": other} for other in rng.sample(pool, min(3, len(pool)))]
    return {"alternatives": found}
