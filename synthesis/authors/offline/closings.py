"""The assistant's last message: every result that was asked for, in words, from what the tools really said.

It draws on the results as the model sees them, cut where they are cut, and says so. What a call was given is not said
again, nor is that it went well.
"""

import ast
import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from synthesis.records import Json, Step
from synthesis.text.equality import normal_form
from synthesis.text.saying import say, spaced

LONGEST = 240
"""Characters of one answer; what does not fit is left out whole, and said to be."""
VOLATILE = "<volatile>"
_SLOT = re.compile(r"\{(\w+)\}")
_UNSEEN = "The result is longer than what can be seen of it."
_CUT = "..."
_OPENINGS = ("Here is the result: ", "Here is what I found: ", "The answer: ")
_NOISE = {"success", "ok", "status", "valid", "converged"}
"""Members that only say that a call went well."""
_MAIN = {"text", "content", "message", "result", "answer", "output", "value", "name", "values", "matches", "datetime"}
"""Members whose values need no name."""
_BYTES = re.compile(r"^\[(image|audio|resource)\b[^\]\n]* sha256 [0-9a-f]{16}\]$", re.MULTILINE)
"""A block that is no text, as `synthesis.servers.result_text` names it: shown to the user, not read out."""
_CLOSERS = {"{": "}", "[": "]", "(": ")"}


def closing(steps: Sequence[Step], reads: Sequence[bool], sayings: Sequence[Sequence[str]], rng: random.Random) -> str:
    """One message for the whole conversation.

    Args:
        steps: all calls with their results.
        reads: for each, whether its result is what was asked for; of the others it is said that they are done.
        sayings: for each, how its tool's answer is put into words: sentences with slots for members of the result and
            of the arguments, and `{answer}` for a result that is one value. The first whose slots are all known counts.
    """
    parts = [
        _answer(step, ways, rng) if asked else _done(step)
        for step, asked, ways in zip(steps, reads, sayings, strict=True)
    ]
    said = list(dict.fromkeys(part for part in parts if part))
    if not all(reads) and (not said or any(not part for part in parts)):
        said.insert(0, rng.choice(["Done.", "That is done.", "Done, as you asked."]))
    return " ".join(said) or "Nothing was found."


def _answer(step: Step, ways: Sequence[str], rng: random.Random) -> str:
    kinds = list(dict.fromkeys(_BYTES.findall(step.result)))
    data, whole = _read(_BYTES.sub("", step.result).strip() if kinds else step.result)
    if kinds and data == "":
        return f"Here is the {' and the '.join(kinds)}."
    known = {name: say(value) for name, value in step.arguments.items()} | dict(_members(data))
    for way in ways:
        if all(slot in known for slot in _SLOT.findall(way)):
            return _sentence(way.format_map(known))
    if not whole and any(slot in step.arguments for way in ways for slot in _SLOT.findall(way)):
        return _UNSEEN  # what this tool is asked for stands behind the cut
    if isinstance(data, str):
        facts = _lines(data, whole)
    else:
        given = {normal_form(value) for value in step.arguments.values()}
        facts = _fitting([steady for fact in _facts(data, given) if (steady := _steady(fact))], whole)
    if not facts:
        return "Nothing was found." if whole else _UNSEEN
    return _sentence(rng.choice(_OPENINGS) + facts)


def _steady(text: str) -> str:
    """The text without what the clock wrote."""
    return re.sub(r"\s*\(?<volatile>T?\)?", " ", text).strip() if VOLATILE in text else text


def _done(step: Step) -> str:
    """What a tool says of what it did, where that is one short sentence; else nothing."""
    data, whole = _read(step.result)
    if isinstance(data, dict):
        data = data.get("message", "")
    short = isinstance(data, str) and whole and "\n" not in data and " " in data.strip() and len(data) <= LONGEST
    return _sentence(data.strip()) if short and VOLATILE not in data else ""


def _members(data: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """All members that are one value, by their path (`target_datetime`); a lone value is `answer`."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from _members(value, f"{path}_{name}" if path else name)
    elif not isinstance(data, list):
        yield path or "answer", _steady(say(data)) or say(data)


def _facts(data: Json, given: set[str], name: str = "") -> Iterator[str]:
    """What data says, member by member; of a list of objects, object by object."""
    if isinstance(data, dict):
        if data and all(value is None for value in data.values()):
            yield f"{name} {', '.join(data)}".strip()
        for key, value in data.items():
            inner = name if key in _MAIN else f"{name} {spaced(key) if key.isidentifier() and key.islower() else key}"
            if key in _NOISE or value in (None, "", [], {}):
                continue
            if normal_form(value) not in given:
                yield from _facts(value, given, inner.strip())
            elif not key.islower():  # a place where something was found
                yield inner.strip()
    elif isinstance(data, list) and any(isinstance(item, dict | list) for item in data):
        for item in data:
            yield f"{name} {_row(item)}".strip()
            name = ""
    elif not isinstance(data, bool):
        yield f"{name} {say(data)}".strip()
    elif data:
        yield name


def _row(item: Json) -> str:
    """One object or list in words: its texts, and its numbers with their names."""
    if isinstance(item, list):
        return " ".join(map(_row, item))
    if not isinstance(item, dict):
        return "" if item is None else say(item)
    told = [(key, value) for key, value in item.items() if value and not isinstance(value, bool)]
    return " ".join(
        f"{spaced(key)} {say(value)}" if isinstance(value, int | float) else _row(value) for key, value in told
    )


def _fitting(facts: Sequence[str], whole: bool) -> str:
    """As many facts as fit, each whole, and at least the first, up to a word of it."""
    kept = ""
    for fact in facts:
        longer = fact if not kept else kept + (" " if kept.endswith((".", ":", ";", ",")) else "; ") + fact
        if len(longer) > LONGEST:
            kept, whole = kept or fact[:LONGEST].rsplit(" ", 1)[0], False
            break
        kept = longer
    return kept if whole or not kept else kept + ("" if kept.endswith((".", ":", ";", ",")) else ",") + " and more"


def _lines(text: str, whole: bool) -> str:
    """The lines of a text that fit; of a cut one not the last, if there is another."""
    found = [steady for line in text.splitlines() if (steady := _steady(" ".join(line.split())))]
    return _fitting(found if whole or len(found) < 2 else found[:-1], whole)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "?", "!")) else text + "."


def _read(text: str) -> tuple[Json, bool]:
    """A shown result as data, or as text; and whether it is all there. Of a cut one, what stands there whole."""
    whole = not text.endswith(_CUT)
    body = text if whole else text.removesuffix(_CUT)
    for candidate in [body] if whole else [body, _closed(body)]:
        if (data := _parsed(candidate)) is not None:
            return data if whole else _without_part(data), whole
    return body, whole


def _without_part(data: Json) -> Json:
    """Cut data without the object or list that it was cut in, where the list that holds it holds others."""
    if isinstance(data, dict) and data:
        last = next(reversed(data))
        return {**data, last: _without_part(data[last])}
    if not isinstance(data, list) or not data or not isinstance(data[-1], dict | list):
        return data
    return data[:-1] if len(data) > 1 else [_without_part(data[-1])]


def _parsed(text: str) -> Json:
    """JSON, or what a Python server prints of its objects; None for anything else."""
    text = re.sub(r":\s*<volatile>", ": null", text.strip())
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if not text.startswith(("[", "{")):
        return None
    try:
        found: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return found if isinstance(found, list | dict) else None


def _closed(text: str) -> str:
    """A cut text up to the last comma after a whole part, with what is open there closed."""
    stack: list[str] = []
    quote, escaped, end, open_then = "", False, 0, [""]
    for at, char in enumerate(text):
        if quote:
            escaped, quote = char == "\\" and not escaped, "" if char == quote and not escaped else quote
        elif char in "\"'":
            quote = char
        elif char in _CLOSERS:
            stack.append(_CLOSERS[char])
        elif stack and char == stack[-1]:
            stack.pop()
        elif char == "," and stack:
            end, open_then = at, list(stack)
    return text[:end] + "".join(reversed(open_then))
