"""ACEBench (MIT): normal requests and special ones, which cannot be met, in English and Chinese.

The rule was read in the port of EvalScope 1.14.1 and is compared with it verdict by verdict (`make oracles`). It is
lax: a text is right where it holds the right one, numbers and truth values only need to be of the right type, and
arguments that the schema does not require may be missing. Special requests are answered in words that hold what
ACEBench asks to be said. Its agent tasks want simulated services and a user, and are named as missing.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.cases import Case, Loaded, Score, matched, plain, tool
from eval.benchmarks.reading import answers, lines
from eval.policies.base import Message, Prompt
from eval.replies.calls import NO_CALL, Call, Reply, exact
from synthesis.records import Json

LACKS, WRONG, OUTSIDE = "Missing necessary parameters", "There is incorrect value", "the limitations of the function"
"""What a reply to a special request has to say, letter by letter, in both languages."""
TOLD = f"""You have the tools that are listed. Call those that meet the user's last request, with the values that the
user gave. Where it cannot be met, call nothing and answer with one of these sentences, in English, word for word:
- a value is missing that a tool requires: {LACKS} (name of each) for the api (its name)
- a value is not of the form that a tool asks for: {WRONG} (the value) for the parameters (its name)
- no tool is of use: Due to {OUTSIDE}, I cannot solve this problem."""
TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "int": int,
    "number": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "list": list,
    "list(string)": list,
    "list(enum)": list,
    "objectArray": list,
    "dict": dict,
    "object": dict,
    "any": str,
    "enum": enumerate,
}
"""A type that is none here is as wrong as a value of another type; `enumerate` is what no JSON value is."""
NESTED = ("array", "tuple", "list(string)", "list(enum)", "object", "objectArray")
_NUMBERED = re.compile(r"_\d+$")
_SPEAKER = re.compile(r"^(user|system): ?", re.MULTILINE)


def load(path: Path) -> Loaded:
    """The cases of `data_{en,zh}/data_*.json` under `path`, with the answers in `possible_answer` beside them.

    Raises:
        UserError: there is none.
    """
    found = Loaded()
    for file, rows in lines(path, "ACEBench's data_*.json", lambda file: file.name.startswith("data_")):
        language, category = file.parent.name.removeprefix("data_"), file.stem.removeprefix("data_")
        name = f"{language}_{category}"
        if category.startswith("agent"):
            found.lacks(name, len(rows), "wants its simulated services and a user")
            continue
        gold = answers(file)
        found.cases += [_case(row, name, gold[row["id"]]) for row in rows if row["id"] in gold]
    return found


def prompt(case: Case) -> Prompt:
    """The dialogue so far, under what ACEBench asks for in our words."""
    tools = [tool(each["name"], each.get("description", ""), _parameters(each)) for each in case.functions]
    return Prompt(list(case.messages), tools)


def parse(_case: Case, reply: Reply) -> Sequence[Call]:
    """The calls."""
    return reply.calls


def score(case: Case, reply: Reply) -> Score:
    """`own` by ACEBench's rule; `exact` with every argument of a gold call and its value as it stands."""
    if "special" in case.category:
        own = _says(case.category, case.gold, reply.text)
        return Score(own, own and not reply.calls)
    calls = parse(case, reply)
    alternatives = case.gold if isinstance(case.gold, list) else [case.gold]
    own = any(_calls_right(gold, calls, case.functions) for gold in alternatives)
    return Score(own, any(_stand(gold, calls) for gold in alternatives))


def _case(row: Mapping[str, Any], category: str, gold: Json) -> Case:
    dialogue = _NUMBERED.sub("", row["id"]) if "multi_turn" in category else ""
    told = "\n\n".join(text for text in (TOLD, row.get("time", ""), _profile(row.get("profile"))) if text)
    messages: list[Message] = [{"role": "system", "content": told}, *_dialogue(row["question"])]
    cluster = f"{category}/{dialogue}" if dialogue else ""
    id_ = f"{category.partition('_')[0]}_{row['id']}"
    return Case(id_, category, messages, row["function"], gold, _reply(category, gold), cluster)


def _profile(profile: Json) -> str:
    return f"About the user: {profile if isinstance(profile, str) else json.dumps(profile)}" if profile else ""


def _dialogue(text: str) -> list[Message]:
    """The turns of a dialogue that is written as one text, where `system` is the agent."""
    parts = _SPEAKER.split(text)
    roles = {"user": "user", "system": "assistant"}
    told: list[Message] = [{"role": "user", "content": parts[0].strip()}] if parts[0].strip() else []
    for speaker, said in zip(parts[1::2], parts[2::2], strict=True):
        if told and told[-1]["role"] == roles[speaker]:
            told[-1] = {**told[-1], "content": f"{told[-1]['content']}\n{said.strip()}"}
        else:
            told.append({"role": roles[speaker], "content": said.strip()})
    return told


def _parameters(function: Mapping[str, Any]) -> Json:
    """A function's parameters, which some functions that are never right call arguments."""
    return next((function[key] for key in ("parameters", "arguments", "_arguments") if key in function), {})


def _reply(category: str, gold: Json) -> Reply:
    if "special" not in category:
        first = gold[0] if isinstance(gold, list) else gold
        return Reply("", tuple(Call(_NUMBERED.sub("", name), arguments) for name, arguments in first.items()))
    sentence = LACKS if "incomplete" in category else WRONG if "error" in category else f"Due to {OUTSIDE}"
    named = f" {json.dumps(gold, ensure_ascii=False)}" if isinstance(gold, dict) else ", I cannot solve this problem."
    return Reply(sentence + named, problem=NO_CALL)


def _says(category: str, gold: Json, text: str) -> bool:
    if "irrelevant" in category:
        return OUTSIDE in text
    named = [str(value) for values in gold.values() for value in values]
    if "incomplete" in category:
        return LACKS in text and all(each in text for each in [*gold, *named])
    return WRONG in text and all(each in text for each in named)


def _calls_right(gold: Mapping[str, Any], calls: Sequence[Call], functions: Sequence[Mapping[str, Any]]) -> bool:
    wanted = [(name, _NUMBERED.sub("", name), arguments) for name, arguments in gold.items()]
    if Counter(name for _, name, _ in wanted) != Counter(call.name for call in calls):
        return False
    described = [next((each for each in functions if each["name"] in written), None) for written, _, _ in wanted]
    return all(
        any(function is not None and _right(function, arguments, call) for call in calls if call.name == name)
        for function, (_, name, arguments) in zip(described, wanted, strict=True)
    )


def _right(function: Mapping[str, Any], gold: Mapping[str, Any], call: Call) -> bool:
    """Whether a call is one that the gold call stands for."""
    parameters = function.get("parameters", {})
    if not call.arguments or not parameters:
        return not call.arguments and not parameters
    known = parameters["properties"]
    if gold == known:
        return True
    if not gold or call.name != function["name"]:
        return False
    if any(name not in call.arguments for name in parameters.get("required", [])):
        return False
    if any(name not in known or name not in gold for name in call.arguments):
        return False
    return all(_value_right(value, gold[name], known[name]) for name, value in call.arguments.items())


def _value_right(value: Json, gold: Json, schema: Mapping[str, Any]) -> bool:
    named = str(schema["type"])
    kind = TYPES.get(named, enumerate)
    inner = TYPES.get(_inner(schema), enumerate) if named in NESTED else None
    if named == "float" and type(value) is int:
        value = float(value)
    fits, variable = _type_fits(value, gold, kind, inner)
    if not fits or variable:
        return fits
    if kind is dict:
        return _object_right(value, gold)
    if kind is list and inner is dict:
        return len(value) == len(gold) and all(map(_object_right, value, gold))
    if kind is str:
        return plain(gold) in plain(value)
    if kind is list:
        return [plain(item) for item in value] == [plain(item) for item in gold]
    return True


def _type_fits(value: Any, gold: Json, kind: type, inner: type | None) -> tuple[bool, bool]:
    """Whether a value is of a type that will do, and whether its value is then not looked at."""
    given = type(gold) if gold != "" else None
    variable = given is not None and given is not kind
    value = _truth(value)
    typed = type(value) is kind
    if typed:
        if inner is None:
            return True, variable
        parts = gold if isinstance(gold, Collection) else []
        fits = (not isinstance(part, list) or all(_type_fits(v, part, inner, None)[0] for v in value) for part in parts)
        return any(fits), variable
    return given is not None and (type(value) is given or gold == value), True


def _inner(schema: Mapping[str, Any]) -> str:
    items = schema.get("items")
    if isinstance(items, dict) and "type" in items:
        return str(items["type"])
    named = str(schema["type"])
    return "string" if "string" in named else "enum" if "enum" in named else "dict"


def _truth(value: Json) -> Json:
    return value == "true" if value in ("true", "false") else value


def _object_right(value: Json, gold: Json) -> bool:
    if not isinstance(value, dict) or not isinstance(gold, dict) or value.keys() != gold.keys():
        return False
    for key, item in value.items():
        if isinstance(gold[key], dict):
            if not _object_right(_truth(item), gold[key]):
                return False
        elif str(plain(gold[key])) not in str(plain(_truth(item))):
            return False
    return True


def _stand(gold: Mapping[str, Any], calls: Sequence[Call]) -> bool:
    """Whether the calls are the gold ones, in any order, with just their arguments and values."""

    def same(wanted: tuple[str, Json], call: Call) -> bool:
        name, arguments = wanted
        return call.name in (name, _NUMBERED.sub("", name)) and exact(call.arguments, arguments)

    return matched(list(gold.items()), calls, same)
