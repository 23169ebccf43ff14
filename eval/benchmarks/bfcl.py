"""BFCL v4, the Berkeley function calling leaderboard (Apache-2.0): its single turns, in Python, live and not.

A gold call gives each argument a list of accepted values; the empty text in it means that the argument may be left out.
The rule was read in `bfcl-eval` 2026.3.23 and is compared with it verdict by verdict (`make oracles`). It is lax in
that texts are compared without blanks, case and some punctuation. Turns in Java and JavaScript want values as source
code, several turns want its simulated services, and memory and web search want theirs: those are named as missing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.cases import Case, Loaded, Score, matched, plain, tool
from eval.benchmarks.reading import answers, lines
from eval.policies.base import Prompt
from eval.replies.calls import NO_CALL, Call, Reply, exact
from synthesis.records import Json

PREFIX = "BFCL_v4_"
LEFT_OUT = {
    "simple_java": "values are source code of Java",
    "simple_javascript": "values are source code of JavaScript",
    "multi_turn": "several turns want its simulated services",
    "memory": "wants its memory services",
    "web_search": "wants the web",
}
TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
OPTIONAL = ""
"""The accepted value that stands for an argument left out."""


def load(path: Path) -> Loaded:
    """The cases of `BFCL_v4_*.json` under `path`, with the answers in `possible_answer` beside them.

    Raises:
        UserError: there is none.
    """
    found = Loaded()
    for file, rows in lines(path, "BFCL's BFCL_v4_*.json", _wanted):
        category = file.stem.removeprefix(PREFIX)
        if reason := next((why for name, why in LEFT_OUT.items() if f"{category}_".startswith(f"{name}_")), ""):
            found.lacks(category, len(rows), reason)
            continue
        gold = {} if "relevance" in category else answers(file)  # there it only matters whether anything is called
        found.cases += [_case(row, category, gold.get(row["id"], [])) for row in rows]
    return found


def prompt(case: Case) -> Prompt:
    """The turn, with the functions as tools; a dot in a name is an underscore there, as with hosted models."""
    tools = [tool(_name(each["name"]), each.get("description", ""), each["parameters"]) for each in case.functions]
    return Prompt(list(case.messages), tools)


def parse(_case: Case, reply: Reply) -> Sequence[Call]:
    """The calls, by the names of the tools."""
    return reply.calls


def score(case: Case, reply: Reply) -> Score:
    """`own` by BFCL's rule for syntax trees; `exact` with values that are accepted as they stand."""
    calls = parse(case, reply)
    if "irrelevance" in case.category:
        return Score(not calls, not calls)
    if "relevance" in case.category:
        return Score(bool(calls), bool(calls))
    described = {each["name"]: each for each in case.functions}

    def own(gold: Mapping[str, Any], call: Call) -> bool:
        ((name, accepted),) = gold.items()
        return _right(described[name], accepted, call)

    def strict(gold: Mapping[str, Any], call: Call) -> bool:
        ((name, accepted),) = gold.items()
        return call.name == _name(name) and _stands(call.arguments, accepted)

    return Score(matched(case.gold, calls, own), matched(case.gold, calls, strict))


def _wanted(file: Path) -> bool:
    """Whether it holds cases; `format_sensitivity` lists ids of the other files."""
    return file.name.startswith(PREFIX) and "format_sensitivity" not in file.name and "unused" not in str(file.parent)


def _case(row: Mapping[str, Any], category: str, gold: Sequence[Mapping[str, Any]]) -> Case:
    calls = tuple(Call(_name(name), _first(accepted)) for call in gold for name, accepted in call.items())
    if "irrelevance" not in category and "relevance" in category:
        calls = (Call(_name(row["function"][0]["name"]), {}),)
    right = Reply("", calls, "" if calls else NO_CALL)
    return Case(row["id"], category, row["question"][0], row["function"], list(gold), right)


def _name(name: str) -> str:
    return name.replace(".", "_")


def _first(accepted: Mapping[str, Sequence[Json]]) -> dict[str, Json]:
    """The first accepted value of each argument; none where that says that it may be left out."""
    return {name: _filled(values[0]) for name, values in accepted.items() if values and values[0] != OPTIONAL}


def _filled(value: Json) -> Json:
    """An accepted value; an object's members have accepted values in their turn, and what those hold has none."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if not isinstance(value, dict) or not all(isinstance(each, list) for each in value.values()):
        return value
    return {key: each[0] for key, each in value.items() if each and each[0] != OPTIONAL}


def _right(function: Mapping[str, Any], accepted: Mapping[str, Any], call: Call) -> bool:
    """Whether a call is one that the gold call stands for."""
    parameters = function["parameters"]
    known = parameters["properties"]
    if call.name != _name(function["name"]) or any(name not in call.arguments for name in parameters["required"]):
        return False
    if any(name not in known or name not in accepted for name in call.arguments):
        return False
    if any(name not in call.arguments and OPTIONAL not in values for name, values in accepted.items()):
        return False
    return all(_value_right(value, accepted[name], known[name]) for name, value in call.arguments.items())


def _value_right(value: Any, accepted: Sequence[Json], schema: Mapping[str, Any]) -> bool:
    kind, inner = TYPES[schema["type"]], None
    if schema["type"] in ("array", "tuple"):
        inner = TYPES[schema["items"]["type"]]
    if schema["type"] == "float" and type(value) is int:
        value = float(value)
    given = next((type(each) for each in accepted if each != OPTIONAL), None)
    # A gold value of another type than the schema's stands for a variable: then it is read as it is.
    variable = given is not None and given is not kind
    typed, alike = type(value) is kind, type(value) is given
    if typed and inner is not None and not any(_items_fit(value, each, inner) for each in accepted):
        return False
    if not typed and not alike:
        return False
    if variable or not typed:
        return value in accepted
    if kind is dict:
        return any(_object_right(value, each) for each in accepted if each != OPTIONAL)
    if kind is list and inner is dict:
        return any(_objects_right(value, each) for each in accepted)
    if kind is list:
        return [plain(item) for item in value] in [[plain(item) for item in each] for each in accepted]
    if kind is str:
        return plain(value) in [plain(each) for each in accepted if isinstance(each, str)]
    return value in accepted


def _items_fit(value: Sequence[Json], accepted: Json, inner: type) -> bool:
    if not isinstance(accepted, list):
        return True
    given = next((type(item) for item in accepted if item != OPTIONAL), None)
    return all(type(item) is inner or (given is not None and type(item) is given) for item in value)


def _object_right(value: Json, accepted: Json) -> bool:
    if not isinstance(value, dict) or not isinstance(accepted, dict):
        return False
    known = all(key in accepted and plain(item) in [plain(a) for a in accepted[key]] for key, item in value.items())
    return known and all(key in value or OPTIONAL in choices for key, choices in accepted.items())


def _objects_right(value: Sequence[Json], accepted: Sequence[Json]) -> bool:
    return len(value) == len(accepted) and all(map(_object_right, value, accepted))


def _stands(arguments: Json, accepted: Mapping[str, Sequence[Json]]) -> bool:
    """Whether an object has only accepted values, letter by letter, and lacks only what may be left out."""
    if not isinstance(arguments, dict) or not arguments.keys() <= accepted.keys():
        return False
    if any(name not in arguments and OPTIONAL not in values for name, values in accepted.items()):
        return False
    return all(any(_equal(value, each) for each in accepted[name]) for name, value in arguments.items())


def _equal(value: Json, accepted: Json) -> bool:
    if isinstance(accepted, dict):
        return exact(value, accepted) or (
            all(isinstance(c, list) for c in accepted.values()) and _stands(value, accepted)
        )
    if isinstance(accepted, list) and any(isinstance(item, dict) for item in accepted):
        return isinstance(value, list) and len(value) == len(accepted) and all(map(_equal, value, accepted))
    return exact(value, accepted)
