"""Policies that need no model: what doing nothing, or next to nothing, scores; and what is right.

A metric that any of them but `gold` does well on measures nothing. They are named `policy:NAME` wherever a model is
expected.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from eval.policies.base import Keep, Progress, Prompt, keep_nothing, no_progress
from eval.replies.calls import NO_CALL, Call, Reply
from synthesis.errors import UserError
from synthesis.records import Json
from synthesis.schemas import properties, required, resolved

PREFIX = "policy:"
GOLD = f"{PREFIX}gold"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class ScriptedPolicy:
    """Answers each prompt by a rule."""

    parallel = True

    def __init__(self, name: str, answer: Callable[[Prompt], Reply]) -> None:
        self.name, self._answer = name, answer

    def reply(
        self, prompts: Sequence[Prompt], progress: Progress = no_progress, keep: Keep = keep_nothing
    ) -> list[Reply]:
        """One reply a prompt, in order."""
        found = []
        for at, prompt in enumerate(prompts):
            found.append(self._answer(prompt))
            keep(at, found[-1])
        progress(len(found))
        return found


def gold(answers: Iterable[tuple[Prompt, Sequence[Call]]]) -> ScriptedPolicy:
    """The policy that makes the right calls; a prompt without any is answered in words."""
    return answering((prompt, _calling(*calls)) for prompt, calls in answers)


def answering(replies: Iterable[tuple[Prompt, Reply]]) -> ScriptedPolicy:
    """The policy that gives the right reply to each prompt."""
    known = {_key(prompt): reply for prompt, reply in replies}
    return ScriptedPolicy(GOLD, lambda prompt: known[_key(prompt)])


def scripted(name: str) -> ScriptedPolicy:
    """The policy `policy:NAME`.

    Raises:
        UserError: there is none of that name.
    """
    if name == GOLD:
        raise UserError(f"{name}: it knows the answers, so only `rise eval` and `rise bench` take it")
    if name not in RULES:
        raise UserError(f"{name}: there is no such policy; there are {', '.join([*RULES, GOLD])}")
    return ScriptedPolicy(name, RULES[name])


def first_tool(prompt: Prompt) -> Reply:
    """Call the first tool with the emptiest arguments that its schema may take."""
    return _call_of(prompt.tools[0], lambda schema: _emptiest(schema)) if prompt.tools else _saying("")


def copy_request(prompt: Prompt) -> Reply:
    """Call the tool that shares most words with the request, which is every text, and whose number is every number."""
    request = next((str(m["content"]) for m in reversed(prompt.messages) if m["role"] == "user"), "")
    if not prompt.tools:
        return _saying("")

    def taken(schema: Mapping[str, Json]) -> Json:
        if choices := schema.get("enum"):
            return next((choice for choice in choices if str(choice).casefold() in request.casefold()), choices[0])
        if schema.get("type") in ("number", "integer") and (number := _NUMBER.search(request)):
            return int(float(number[0])) if schema["type"] == "integer" else float(number[0])
        return request if schema.get("type") == "string" else _emptiest(schema)

    return _call_of(max(prompt.tools, key=lambda tool: _shared(tool, request)), taken)


def _saying(text: str) -> Reply:
    return Reply(text, problem=NO_CALL)


def _calling(*calls: Call) -> Reply:
    text = "\n".join(json.dumps(call.as_dict(), ensure_ascii=False) for call in calls)
    return Reply(text, tuple(calls)) if calls else _saying("Done.")


def _call_of(tool: Mapping[str, Any], value: Callable[[Mapping[str, Json]], Json]) -> Reply:
    function = tool["function"]
    root = function.get("parameters") or {}
    known = properties(root)
    return _calling(
        Call(function["name"], {name: value(resolved(known.get(name, {}), root)) for name in required(root)})
    )


def _emptiest(schema: Mapping[str, Json]) -> Json:
    if choices := schema.get("enum"):
        return choices[0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    empty: dict[Json, Json] = {"integer": 0, "number": 0, "boolean": False, "array": [], "object": {}, "null": None}
    return empty.get(kind, "")


def _shared(tool: Mapping[str, Any], request: str) -> int:
    told = f"{tool['function']['name']} {tool['function'].get('description', '')}"
    first, second = (set(re.findall(r"[a-z]{3,}", text.casefold())) for text in (told, request))
    return len(first & second)


def _key(prompt: Prompt) -> str:
    """What was said and called so far; what servers answered may be otherwise when it is asked again."""
    said = [message for message in prompt.messages if message["role"] != "tool"]
    return json.dumps([said, prompt.tools], sort_keys=True)


RULES: dict[str, Callable[[Prompt], Reply]] = {
    f"{PREFIX}no_op": lambda _: _saying(""),
    f"{PREFIX}always_ask": lambda _: _saying("Could you tell me more about what you need?"),
    f"{PREFIX}always_refuse": lambda _: _saying("I am sorry, but I cannot do that."),
    f"{PREFIX}first_tool": first_tool,
    f"{PREFIX}copy_request": copy_request,
}
