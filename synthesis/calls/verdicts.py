"""Did the call really succeed? An auditable answer, in this order: protocol, output schema, rules on the text.

Servers report failure politely: of 98 real failures measured on 28 public servers, 28 came with `isError: false`. A
search for the word "error" in the whole text would be worse, for logs and documents hold it. So the rules look at the
first line of prose and at known fields of a JSON body, and nowhere else. Each rule has a name, and a rejection quotes
the text that the rule fired on.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from synthesis.records import Json, Tool, ToolResult
from synthesis.schemas import answer_fault

QUOTED = 120
"""Characters of the offending text that a reason quotes."""

FIRST_LINE_RULES: dict[str, str] = {
    "opens_with_error": r"^[\W_]*(?!no |0 )(\w+ )?(error|exception|traceback|failure|fatal)\b(?! (rate|margin|bar))",
    "opens_with_failed": r"^[\W_]*(\w+ ){0,3}(failed|could not|couldn't|can't|unable to)\b",
    "opens_with_refusal": r"^[\W_]*(invalid|unknown|unsupported|missing|cannot|no such|illegal|forbidden|denied)\b",
    "names_exception": r"\b[A-Z]\w*(Error|Exception)\b\s*[:(]",
    "error_colon": r"\berror( \w+){0,4}:\s",
    "does_not_exist": r"\b(does not exist|doesn't exist|do not exist|was not found|were not found|not found)\b",
    "is_refused": r"\b(is|are|was) (not (allowed|permitted|valid|supported|available)|invalid|out of range|required)\b",
    "cannot": r"\b(cannot|can not|could not|unable to|failed to|must be)\b",
    "opens_with_foreign_failure": r"^\W*(错误|失败|无效|无法|不支持|未找到|找不到|不存在|Fehler|Ungültig|Erreur|Échec)",
    "no_result": r"^no (results|matches|matching|data|records|rows|entries|items) (were )?(found|available)\b",
}
"""Rules on the first non-empty line, case-insensitive except `names_exception`."""

_FAILED_WORDS = {"error", "failed", "failure", "fail"}


def judge(
    tool: Tool, result: ToolResult, extra: Sequence[str] = (), arguments: Mapping[str, Json] = MappingProxyType({})
) -> str:
    """Return why `result` is a failure: the rule's name and the text it fired on; an empty string for a success.

    `extra` are the server's own failure patterns (`rise.errors` in the servers file), searched in the whole text.
    `arguments` are the call's: a sentence that the caller sent and the server repeats is no news of a failure.
    """
    if result.down:
        return _reason("server_down", result.text)
    if result.is_error:
        return _reason("is_error", result.text)
    sent = [value for value in arguments.values() if isinstance(value, str) and " " in value.strip()]
    return _schema_violation(tool, result) or _text_failure(result.text, extra, sent)


def _reason(rule: str, text: str) -> str:
    return f"{rule}: {' '.join(text.split())[:QUOTED]}"


def _schema_violation(tool: Tool, result: ToolResult) -> str:
    fault = "" if result.structured is None else answer_fault(tool, result.structured)
    return _reason("output_schema", fault) if fault else ""


def _text_failure(text: str, extra: Sequence[str], sent: Sequence[str]) -> str:
    if not text.strip():
        return "empty: the result has no text"
    for pattern in extra:
        if found := re.search(pattern, text, re.IGNORECASE):
            return _reason(f"server_rule {pattern!r}", found.group(0))
    for words in sent:
        text = text.replace(words, "")
    body = _parse(text)
    return _prose_failure(body) if isinstance(body, str) else _body_failure(body)


def _parse(text: str) -> Json:
    """The text as JSON where it is an object or a list, else the plain text (a JSON string is unwrapped)."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return body if isinstance(body, (dict, list, str)) else text


def _prose_failure(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    for name, pattern in _compiled():
        if pattern.search(line):
            return _reason(name, line)
    return ""


@cache
def _compiled() -> list[tuple[str, re.Pattern[str]]]:
    flags = {"names_exception": re.NOFLAG}
    return [(name, re.compile(rule, flags.get(name, re.IGNORECASE))) for name, rule in FIRST_LINE_RULES.items()]


def _body_failure(body: Json) -> str:
    """Look for failure fields at any depth: a batch reports the failure of one item inside a success."""
    level = [body]
    while level:
        objects = [item for item in level if isinstance(item, dict)]
        if reason := next(filter(None, map(_field_failure, objects)), ""):
            return reason
        lists = [item for item in level if isinstance(item, list)] + [list(item.values()) for item in objects]
        level = [part for parts in lists for part in parts]
    return ""


def _field_failure(body: dict[str, Json]) -> str:
    for key, value in body.items():
        name = key.lower()
        if name in {"error", "errors", "error_message"} and value not in (None, "", [], {}, 0, False):
            return _reason(f"field_{name}", str(value))
        if name in {"success", "ok", "succeeded"} and value is False:
            return _reason(f"field_{name}", json.dumps(body, ensure_ascii=False))
        if name in {"status", "result"} and isinstance(value, str) and value.lower() in _FAILED_WORDS:
            return _reason(f"field_{name}", json.dumps(body, ensure_ascii=False))
    message = body.get("message") or body.get("result")
    return _prose_failure(message) if isinstance(message, str) else ""
