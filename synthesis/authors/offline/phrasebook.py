"""Phrasebooks: what is known of one server's tools, so that requests sound natural and calls make sense.

One YAML file a server (`phrasebooks/<server>.yaml`): value pools, and for every tool how one asks for it (`heads`), how
one says each parameter (`phrases`), which argument sets belong together (`cases`, `optional`), what must run before
(`setup`), and how one refers to an identifier that only a result shows (`obscured`).
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from synthesis.errors import UserError
from synthesis.records import Json
from synthesis.text.equality import canonical

SLOT = re.compile(r"\{(\w+)\}")
# libyaml reads ten times faster; both are the safe loader.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FOLDER = Path(__file__).parent / "phrasebooks"


def _as_key(key: Json) -> str:
    """Read a phrase map's key, which is JSON text or, for short, the bare string itself."""
    if not isinstance(key, str):
        return canonical(key)
    try:
        return canonical(json.loads(key))
    except json.JSONDecodeError:
        return canonical(key)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetupCall(_Strict):
    """A call that has to come first. `tool` is the name that the server uses."""

    tool: str
    arguments: dict[str, Json] = {}


class ToolEntry(_Strict):
    """One tool's entry."""

    effect: Literal["read", "write"]
    object: str
    heads: list[str] = Field(min_length=1)
    phrases: dict[str, list[str] | dict[str, list[str]]] = {}
    cases: list[dict[str, Json]] = Field(min_length=1)
    optional: dict[str, Json] = {}
    setup: list[SetupCall] = []
    obscured: dict[str, list[str]] = {}

    @field_validator("phrases", mode="before")
    @classmethod
    def _read_keys(cls, phrases: Json) -> Json:
        if not isinstance(phrases, dict):
            return phrases
        return {
            p: {_as_key(k): v for k, v in ways.items()} if isinstance(ways, dict) else ways
            for p, ways in phrases.items()
        }

    @field_validator("phrases")
    @classmethod
    def _hold_values(
        cls, phrases: dict[str, list[str] | dict[str, list[str]]]
    ) -> dict[str, list[str] | dict[str, list[str]]]:
        for parameter, ways in phrases.items():
            if isinstance(ways, list) and not all("{v}" in way for way in ways):
                raise ValueError(f"every phrase of {parameter} must hold {{v}}")
        return phrases

    def parts(self) -> Iterator[tuple[dict[str, Json], list[SetupCall]]]:
        """Yield each case's arguments with the setup that applies: the case's own, or else the tool's."""
        for case in self.cases:
            own = [SetupCall.model_validate(call) for call in case["setup"]] if "setup" in case else self.setup
            yield {parameter: value for parameter, value in case.items() if parameter != "setup"}, own

    def ways(self, parameter: str, value: Json) -> list[str]:
        """Return the phrases for `value`, with `{v}` where it goes; empty where the entry has none."""
        known = self.phrases.get(parameter, [])
        return known.get(canonical(value), []) if isinstance(known, dict) else known


class Phrasebook(_Strict):
    """All that is known of one server."""

    server: str
    field: str
    pools: dict[str, list[Json]] = {}
    answers: list[str] = []
    """How an answer is put into words, with slots for members of results and arguments (`closings.closing`)."""
    tools: dict[str, ToolEntry]

    def options(self, value: Json) -> list[Json]:
        """Return the alternatives that `value` marks (`one_of`, `pool`), or `value` alone."""
        if isinstance(value, dict) and set(value) == {"one_of"}:
            return list(value["one_of"])
        if isinstance(value, dict) and set(value) == {"pool"}:
            return list(self.pools[value["pool"]])
        return [value]

    def pick(self, value: Json, rng: random.Random) -> Json:
        """Choose among the alternatives in `value`, at any depth; `{result, pattern}` becomes a reference."""
        value = rng.choice(self.options(value))
        if isinstance(value, dict) and set(value) == {"result", "pattern"}:
            return {"$result": value["result"], "$pattern": value["pattern"]}
        if isinstance(value, dict):
            return {key: self.pick(item, rng) for key, item in value.items()}
        return [self.pick(item, rng) for item in value] if isinstance(value, list) else value

    def values(self, tool: str, parameter: str) -> list[Json]:
        """List the literal values that the tool's cases and optional parameters offer for `parameter`, each once."""
        entry = self.tools[tool]
        marks = [case[parameter] for case, _ in entry.parts() if parameter in case]
        marks += [entry.optional[parameter]] if parameter in entry.optional else []
        found = [value for mark in marks for value in self.options(mark)]
        literal = [v for v in found if not (isinstance(v, dict) and {"result", "one_of", "pool"} & set(v))]
        return list({canonical(value): value for value in literal}.values())

    def problem(self) -> str:
        """Describe the first fault that the types do not show, or return an empty string."""
        for name, entry in self.tools.items():
            given = {p for case, _ in entry.parts() for p in case} | set(entry.optional)
            slots = {slot for head in entry.heads for slot in SLOT.findall(head)}
            if unknown := sorted((slots | set(entry.phrases) | set(entry.obscured)) - given):
                return f"tools.{name}: expected a value in cases or optional for {', '.join(unknown)}, found none"
            setups = [call.arguments for _, setup in entry.parts() for call in setup]
            if missing := sorted(_pools([entry.cases, entry.optional, setups]) - set(self.pools)):
                return f"tools.{name}: expected a pool under pools for {', '.join(missing)}, found none"
        return ""


def _pools(value: Json) -> set[str]:
    if isinstance(value, dict):
        own = {value["pool"]} if set(value) == {"pool"} and isinstance(value["pool"], str) else set()
        return own.union(*(_pools(item) for item in value.values()))
    return set().union(*(_pools(item) for item in value)) if isinstance(value, list) else set()


def load_phrasebook(path: Path) -> Phrasebook:
    """Read and check one phrasebook file; raises UserError where it is not in the format."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        book = Phrasebook.model_validate(data)
        problem = book.problem()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected a phrasebook in YAML") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: field {field or 'at the top'}: {first['msg']}") from error
    if problem:
        raise UserError(f"{path}: {problem}")
    return book


def load_folder(folder: Path) -> dict[str, Phrasebook]:
    """Read all phrasebooks of a folder, by server; raises UserError for a bad file or a server that comes twice."""
    books: dict[str, Phrasebook] = {}
    for path in sorted(folder.glob("*.yaml")):
        book = load_phrasebook(path)
        if book.server in books:
            raise UserError(f"{path}: field server: {book.server} has another phrasebook in {folder} already")
        books[book.server] = book
    return books
