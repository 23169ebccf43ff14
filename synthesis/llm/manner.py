"""How one endpoint is asked: as OpenAI is at first, then without what it refuses, which is remembered.

Servers that speak the protocol differ in what of it they take: a reply's shape by schema, as any JSON object, or not at
all; the limit of a reply under its new name or the old one; a seed, a temperature, a stream, or none.
"""

import json
import re
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthesis.json_file import write_json
from synthesis.records import Json

FORMATS = ("json_schema", "json_object", "none")
"""What is asked of a reply's shape, the strictest first."""
_REFUSING = frozenset({400, 404, 415, 422, 501})
_ABOUT_FORMAT = re.compile(r"response_format|json_schema|json_object|structured|guided|grammar", re.IGNORECASE)
_OPTIONAL = ("stream_options", "seed", "temperature", "stream")
"""What can be left out, in the order in which a message that names several is read."""


def _strict(schema: Json) -> bool:
    """Whether a schema is one that OpenAI holds to strictly: each object has all its members, and no others."""
    if isinstance(schema, list):
        return all(map(_strict, schema))
    if not isinstance(schema, dict):
        return True
    members = schema.get("properties", {})
    whole = schema.get("additionalProperties") is False and set(schema.get("required", [])) == set(members)
    return (schema.get("type") != "object" or whole) and all(map(_strict, schema.values()))


@dataclass
class Manner:
    """What one model at one endpoint takes. Kept in `path`; may be used by several threads."""

    path: Path
    response_format: str = FORMATS[0]
    limit: str = "max_completion_tokens"
    left_out: list[str] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(cls, path: Path) -> "Manner":
        """As it was found by an earlier command of the run, or the first to be tried."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, found["response_format"], found["limit"], list(found["left_out"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)

    def request(self, name: str, schema: Json, limit: int, seed: int, temperature: float | None) -> dict[str, Any]:
        """What stands in a request beside model and messages."""
        shape = {"name": name, "schema": schema, "strict": _strict(schema)}
        wanted: dict[str, Any] = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": seed % 2**31,
            "temperature": temperature,
        }
        if "stream" in self.left_out:
            wanted.pop("stream_options")
        kept = {key: value for key, value in wanted.items() if key not in self.left_out and value is not None}
        if self.response_format == "json_schema":
            kept["response_format"] = {"type": "json_schema", "json_schema": shape}
        elif self.response_format == "json_object":
            kept["response_format"] = {"type": "json_object"}
        return {**kept, self.limit: limit}

    def yields(self, asked: dict[str, Any], status: int, message: str) -> bool:
        """Change what a refusal names, so that the next request is another; False where it names nothing of ours.

        `asked` is the request that was refused: another thread may have changed the manner since.
        """
        with self._lock:
            change = self._change(asked, status, message)
            if not change:
                return False
            write_json(self.path, {key: getattr(self, key) for key in ("response_format", "limit", "left_out")})
        if change != "changed":
            print(f"model: {change}", file=sys.stderr, flush=True)
        return True

    def without_stream(self) -> None:
        """Note that the endpoint answers in one piece, whatever it is asked for."""
        self.yields({"stream": True}, 400, "stream is not answered by a stream")

    def _change(self, asked: dict[str, Any], status: int, message: str) -> str:
        if status not in _REFUSING:
            return ""
        if "max_completion_tokens" in asked and re.search(r"max_(completion_)?tokens", message):
            already, self.limit = self.limit == "max_tokens", "max_tokens"
            return "changed" if already else "the endpoint knows `max_tokens` only"
        for name in _OPTIONAL[:1]:
            if name in asked and name in message:
                return self._leave_out(name)
        if "response_format" in asked and _ABOUT_FORMAT.search(message):
            tried = asked["response_format"]["type"]
            if self.response_format != tried:
                return "changed"
            self.response_format = FORMATS[FORMATS.index(tried) + 1]
            return f"the endpoint refuses replies by `{tried}`, so {self._instead()}"
        for name in _OPTIONAL[1:]:
            if name in asked and re.search(rf"\b{name}\b", message):
                return self._leave_out(name)
        return ""

    def _leave_out(self, name: str) -> str:
        if name in self.left_out:
            return "changed"
        self.left_out.append(name)
        return f"the endpoint refuses `{name}`, which is left out"

    def _instead(self) -> str:
        if self.response_format == "none":
            return "only the prompt asks for JSON"
        return f"they are asked for by `{self.response_format}`"
