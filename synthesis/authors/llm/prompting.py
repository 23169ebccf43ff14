"""The prompts of the LLM author: files in `prompts/`, and tools cut to the size that a prompt has room for."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from synthesis.llm.client import Prompt, Stage
from synthesis.llm.fencing import cleaned
from synthesis.llm.prompt_files import filled
from synthesis.records import Json, Tool
from synthesis.schemas import properties, required
from synthesis.text.saying import spaced
from synthesis.text.visible import shortened

FOLDER = Path(__file__).parent / "prompts"
LONG_CHARS = 2000
"""Longest description of a tool, and longest result."""
SCHEMA_CHARS = 12_000
"""A schema that is longer as JSON loses its descriptions; one that is still longer its optional parameters."""
OFFERED_CHARS, BRIEF_CHARS = 8000, 200
"""What a prompt tells of the tools for setup calls, in characters, and of the description of each."""


MISSES = 8
"""Tools that may be too long for the room that is left before no more are tried."""
_OPENING = {"open", "create", "start", "new", "add", "load", "connect", "login", "begin", "init", "make", "register"}
_LOOKING = {"list", "find", "search", "get", "read", "show"}
_briefs: dict[int, tuple[Tool, dict[str, Json], int]] = {}
"""By the identity of the tool, which is held, so none takes its id."""


def prompt(name: str, stage: Stage, **values: Json) -> Prompt:
    """Fill in `prompts/NAME.md`."""
    return filled(FOLDER, name, stage, **values)


def described(tool: Tool, room: int = 1) -> dict[str, Json]:
    """A tool as the model is told of it: name, description and input schema, each within its size divided by `room`."""
    return {
        "name": tool.full_name,
        "description": shortened(tool.description, LONG_CHARS // room),
        "parameters": slim(tool.input_schema, SCHEMA_CHARS // room),
    }


def offered(tools: Sequence[Tool], tool: Tool | None = None) -> list[dict[str, Json]]:
    """Tools for setup calls of `tool`, in brief, as many as there is room for, those first that it may need.

    What opens or makes something comes before what looks, and that before all else; among these, what speaks of the
    things that `tool` wants identifiers of; and then what needs least itself.
    """
    wanted = _things(required(tool.input_schema)) if tool else frozenset()

    def need(other: Tool) -> tuple[bool, bool, bool, int, str]:
        words = spaced(other.name).split()
        opens, looks = bool(_OPENING & set(words)), bool(_LOOKING & set(words))
        return not opens, not (wanted & set(words)), not looks, len(required(other.input_schema)), other.full_name

    told: list[dict[str, Json]] = []
    room, misses = OFFERED_CHARS, 0
    for other in sorted(tools, key=need):
        brief, size = _brief(other)
        if size <= room:
            told.append(brief)
            room -= size
        elif (misses := misses + 1) > MISSES:
            break
    return told


def _things(parameters: Sequence[str]) -> frozenset[str]:
    """What identifiers are of: `presentation_id` is of a presentation."""
    found = (re.sub(r" (id|index|idx|key|name|number|path)$", "", spaced(name)) for name in parameters)
    return frozenset(word for thing in found for word in thing.split())


def _brief(tool: Tool) -> tuple[dict[str, Json], int]:
    """A tool in brief, and its size in characters; worked out once a tool."""
    if id(tool) not in _briefs:
        brief = {**described(tool), "description": shortened(tool.description, BRIEF_CHARS)}
        brief["parameters"] = _without_descriptions(brief["parameters"])
        _briefs[id(tool)] = (tool, brief, len(json.dumps(brief)))
    return _briefs[id(tool)][1:]


def slim(schema: dict[str, Json], chars: int = SCHEMA_CHARS) -> dict[str, Json]:
    """`schema` cleaned, and within `chars` as far as leaving things out can bring it there."""
    whole: dict[str, Json] = cleaned(schema)
    if len(json.dumps(whole)) <= chars:
        return whole
    bare: dict[str, Json] = _without_descriptions(whole)
    if len(json.dumps(bare)) <= chars:
        return bare
    needed = set(required(bare))
    return {**bare, "properties": {name: part for name, part in properties(bare).items() if name in needed}}


def _without_descriptions(value: Json) -> Json:
    if isinstance(value, dict):
        return {
            key: _without_descriptions(item)
            for key, item in value.items()
            if key not in ("description", "title", "examples") or isinstance(item, dict)
        }
    return [_without_descriptions(item) for item in value] if isinstance(value, list) else value
