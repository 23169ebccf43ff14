"""STE, simulated trial and error (MIT): test requests, each with its one right call.

An API is described in prose with a JSON-like line (`{{"date" : string, "days" : integer, }}`), or as JSON with
required and optional parameters. STE has the arguments of 31 of its 50 APIs compared as texts and asks ChatGPT about
those of the others: there `own` is no verdict. The rule was read in STE's notebook, and its stored verdicts are what
it is measured by; but a name that is none of its APIs is not taken for the nearest.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.cases import Case, Loaded, Score, tool
from eval.benchmarks.reading import documents, object_of
from eval.policies.base import Prompt
from eval.replies.calls import Call, Reply, exact
from synthesis.records import Json

TEXTS = {
    "Global Email V4%%Global Email V4",
    "BART%%Advisory information",
    "JAK_API%%Ben 10",
    "JAK_API%%Brawl Stars",
    "JAK_API%%Genshin Impact",
    "JAK_API%%Miraculous",
    "colegiosantaana%%Disciplina-1",
    "colegiosantaana%%Evaluaciones-1",
    "colegiosantaana%%Mensajes-1",
    "MikuAPI%%getRandomImage",
    "Handball Data%%Daily Match List-Scheduled",
    "Token API%%generate",
    "Numbers Translator%%Numbers Translator",
    "Numbers%%Get math fact",
    "NumbersToLetters%%Convertir cantidad a letra Moneda MXN Ingles",
    "NumbersToLetters%%Convertir cantidad a letra Moneda MXN Español",
    "Password Generator API%%Base",
    "Password Generator API%%Password of length 50",
    "Places%%Geographic coordinates by placename",
    "pizzaallapala%%Get Producto Promo",
    "siteDomain%%language list",
    "Fluximmo%%get_portail_api",
    "thailand%%thai4",
    "Soccer Data%%Tournament List",
    "Marvel Vs Capcom 2%%All Characters",
    "F1 Latest News%%GET recent F1 news from all sources",
    "Football Dolphin%%Head to head statistics",
    "Car database%%Makes",
    "get_today_date",
    "forecast_weather",
    "add_date",
}
"""The APIs whose arguments STE compares as texts."""
TYPES = {"string", "integer", "number", "boolean"}
BY_TEXT, BY_JUDGE = "by_text", "by_judge"
ACTION, INPUT = "Action:", "Action Input:"
_LINE = re.compile(r"\(args json schema\): \{\{(.*?)\}\}", re.DOTALL)
_MEMBER = re.compile(r'"([^"]+)"\s*:\s*(\w+)')


def load(path: Path) -> Loaded:
    """The cases of `tool_test.json` under `path`.

    Raises:
        UserError: there is none.
    """
    found = Loaded()
    for _, document in documents(path, "STE's tool_test.json", lambda file: file.name == "tool_test.json"):
        for name, entries in document.items():
            found.cases += [_case(f"{name}-{at}", name, entry) for at, entry in enumerate(entries)]
    judged = sum(case.category == BY_JUDGE for case in found.cases)
    found.lacks(f"{BY_JUDGE}.own", judged, "STE asks ChatGPT about their arguments")
    return found


def prompt(case: Case) -> Prompt:
    """The request with its one API as a tool, whose name has only letters that every endpoint takes."""
    (function,) = case.functions
    named = tool(_name(function["name"]), function["description"], function["parameters"])
    return Prompt(list(case.messages), [named])


def parse(case: Case, reply: Reply) -> Sequence[Call]:
    """The calls by the API's own name; or the one that is written in STE's form, `Action:` and `Action Input:`."""
    (function,) = case.functions
    own = function["name"]
    if not reply.calls:
        return _written(reply.text.partition("Final Answer:")[0])
    return [Call(own if call.name == _name(own) else call.name, call.arguments) for call in reply.calls]


def _written(text: str) -> list[Call]:
    """The one action in a text; its arguments are what stands from the first brace to the last."""
    before, _, after = text.partition(INPUT)
    if INPUT in after or before.count(ACTION) != 1:
        return []
    inside = after[after.find("{") : after.rfind("}") + 1]
    arguments = object_of("{" + inside.strip("{}") + "}") if inside else None
    name = before.partition(ACTION)[2].strip().replace("<tool_", "").strip("<>")
    return [] if arguments is None else [Call(name, arguments)]


def score(case: Case, reply: Reply) -> Score:
    """`own`: the first call's API, and each gold argument as text; `exact`: one call, its arguments as they are."""
    calls = parse(case, reply)
    gold = case.right.calls[0]
    named = bool(calls) and calls[0].name == gold.name
    given = calls[0].arguments if calls else {}
    same = all(name in given and _text(given[name]) == _text(value) for name, value in gold.arguments.items())
    own = named and same if case.category == BY_TEXT else None
    return Score(own, named and len(calls) == 1 and exact(given, gold.arguments))


def _text(value: Json) -> str:
    return str(value).strip().lower()


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def _case(id_: str, name: str, entry: Mapping[str, str]) -> Case:
    found = object_of(entry["action_input"])
    right = Call(entry["action"], {"": entry["action_input"]} if found is None else found)
    said = [{"role": "user", "content": entry["query"]}]
    category = BY_TEXT if name in TEXTS else BY_JUDGE
    return Case(id_, category, said, [_function(name, entry["api_descriptions"])], right.as_dict(), Reply("", (right,)))


def _function(name: str, text: str) -> dict[str, Json]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    if line := _LINE.search(text):
        properties = {key: _typed(kind) for key, kind in _MEMBER.findall(line[1])}
    elif (start := text.find("{")) >= 0:
        told = object_of(text[start:]) or {}
        for field in ("required_parameters", "optional_parameters"):
            properties |= {entry["name"]: _typed(str(entry.get("type", ""))) for entry in told.get(field, [])}
        required = [entry["name"] for entry in told.get("required_parameters", [])]
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": text, "parameters": parameters}


def _typed(kind: str) -> dict[str, Json]:
    return {"type": kind.lower()} if kind.lower() in TYPES else {}
