"""Endless random tools and conversations to train the tiny base on, so that it learns to call tools it has never seen.

Everything is drawn anew for every conversation: server, tool and parameter names (a third of them made-up words), their
descriptions, the wording of the request, the values, and what the tools answer. There is no fixed pool of tools to
memorise; pools of fixed tools were what kept an earlier base from generalising (docs/tiny-model.md).
"""

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Rng = random.Random
Message = dict[str, Any]


def _word_lists() -> dict[str, Any]:
    raw = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text())
    return {name: value.split() if isinstance(value, str) else value for name, value in raw.items()}


LISTS = _word_lists()
VERBS: dict[str, list[str]] = LISTS["verbs"]
NOUNS: list[str] = LISTS["nouns"]
WORDS: list[str] = LISTS["words"]
TYPICAL: dict[str, list[str]] = LISTS["typical_names"]
NATURAL: dict[str, list[str]] = LISTS["natural_phrases"]
DIRECTED: dict[str, list[str]] = LISTS["directed_phrases"]


@dataclass(frozen=True)
class Conversation:
    """Tools in the OpenAI format and messages that end with the assistant; what a chat template takes."""

    tools: list[dict[str, Any]]
    messages: list[Message]


def made_up(r: Rng, syllables: int) -> str:
    """A pronounceable word that nobody has seen."""
    parts = (
        r.choice(LISTS["syllable_onsets"]) + r.choice(LISTS["syllable_vowels"]) + r.choice(LISTS["syllable_ends"])
        for _ in range(syllables)
    )
    return "".join(parts)


def noun(r: Rng) -> str:
    """A noun: mostly a known one, sometimes any word, sometimes made up."""
    x = r.random()
    return r.choice(NOUNS) if x < 0.6 else r.choice(WORDS) if x < 0.75 else made_up(r, r.choice([1, 2, 2, 3]))


def _title(r: Rng) -> str:
    words = [r.choice(WORDS + NOUNS) if r.random() < 0.75 else made_up(r, 2) for _ in range(r.choice([1, 2, 2, 3, 4]))]
    style = r.random()
    text = " ".join(words)
    return text.title() if style < 0.4 else text.capitalize() if style < 0.7 else text


def _name(r: Rng) -> str:
    first = r.choice(LISTS["first_names"]) if r.random() < 0.6 else made_up(r, 2).capitalize()
    return (
        first
        if r.random() < 0.3
        else f"{first} {r.choice(LISTS['last_names']) if r.random() < 0.6 else made_up(r, 2).capitalize()}"
    )


def _identifier(r: Rng) -> str:
    letters = "".join(r.choice(string.ascii_uppercase) for _ in range(r.choice([1, 2, 3])))
    digits = "".join(r.choice(string.digits) for _ in range(r.choice([1, 2, 3, 4, 5])))
    mixed = "".join(r.choice("0123456789abcdef") for _ in range(r.choice([6, 7, 8])))
    return r.choice(
        [f"{letters}-{digits}", f"{letters}{digits}", f"{noun(r)}_{digits}", mixed, f"{made_up(r, 2)}-{digits}"]
    )


def _path(r: Rng) -> str:
    stem = r.choice([noun(r), f"{noun(r)}_{noun(r)}", f"{noun(r)}-{r.randint(1, 2030)}"])
    folder = r.choice(["/data/", "/data/", "/data/", "", f"/{noun(r)}/", f"{noun(r)}/", f"/data/{noun(r)}/"])
    return f"{folder}{stem}" if r.random() < 0.1 else f"{folder}{stem}.{r.choice(LISTS['extensions'])}"


def _cell(r: Rng) -> str:
    column = r.choice("ABCDEFGHIJKLMN")
    row = r.randint(1, 40)
    other = f"{r.choice('CDEFGHIJKLMNOP')}{row + r.randint(1, 20)}"
    return r.choice([f"{column}{row}", f"{column}{row}", f"{column}{row}:{other}"])


def _integer(r: Rng) -> int:
    return r.choice([r.randint(0, 9), r.randint(1, 99), r.randint(10, 999), r.randint(100, 9999)])


def _number(r: Rng) -> float | int:
    return r.choice([_integer(r), round(r.uniform(0, 10), 1), round(r.uniform(0, 900), 2), r.choice([0.5, 1.5, 2.5])])


def _expression(r: Rng) -> str:
    a, b, c = r.randint(2, 99), r.randint(2, 99), r.randint(2, 9)
    return r.choice(
        [f"{a} + {b}", f"{a} * {b}", f"({a} + {b}) * {c}", f"{a} / {c}", f"sqrt({a * a})", f"{c}**{r.randint(2, 5)}"]
    )


def _statement(r: Rng) -> str:
    column, table = noun(r), noun(r) + "s"
    return r.choice(
        [
            f"SELECT {column} FROM {table}",
            f"SELECT * FROM {table} WHERE {column} = {_integer(r)}",
            f"SELECT COUNT(*) FROM {table}",
        ]
    )


def _sentence(r: Rng) -> str:
    return " ".join(
        [r.choice(["The", "Our", "This", "Please", "We"]), *(r.choice(WORDS + NOUNS) for _ in range(r.randint(2, 5)))]
    )


VALUES: dict[str, Callable[[Rng], Any]] = {
    "title": _title,
    "name": _name,
    "id": _identifier,
    "path": _path,
    "cell": _cell,
    "int": _integer,
    "num": _number,
    "expression": _expression,
    "statement": _statement,
    "sentence": _sentence,
    "word": noun,
    "city": lambda r: r.choice(LISTS["cities"]) if r.random() < 0.6 else made_up(r, 2).capitalize(),
    "zone": lambda r: f"{r.choice(LISTS['zones'])}/{r.choice(LISTS['cities'])}",
    "date": lambda r: f"{r.randint(2019, 2029)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}",
    "time": lambda r: f"{r.randint(0, 23):02d}:{r.choice([0, 5, 10, 15, 20, 30, 40, 45, 50]):02d}",
    "color": lambda r: "".join(r.choice("0123456789ABCDEF") for _ in range(6)),
    "email": lambda r: (
        f"{r.choice(LISTS['first_names']).lower()}.{made_up(r, 2)}@{made_up(r, 2)}.{r.choice(['com', 'org', 'net'])}"
    ),
    "month": lambda r: r.choice(LISTS["months"]),
    "list": lambda r: [r.choice([noun, _integer])(r) for _ in range(r.randint(2, 4))],
}
SCHEMA: dict[str, dict[str, Any]] = {
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "list": {"type": "array", "items": {}},
}


@dataclass
class Parameter:
    """One parameter: its kind of value and the ways in which a user says it."""

    name: str
    kind: str
    required: bool
    options: tuple[str, ...] = ()
    phrases: list[str] = field(default_factory=list)

    def schema(self) -> dict[str, Any]:
        if self.kind == "enum":
            return {"type": "string", "enum": list(self.options)}
        return SCHEMA.get(self.kind, {"type": "string"})


@dataclass
class ProceduralTool:
    """A random tool and how one asks for it."""

    name: str
    description: str
    heads: list[str]
    parameters: list[Parameter]

    def spec(self) -> dict[str, Any]:
        properties = {p.name: p.schema() for p in self.parameters}
        parameters = {
            "type": "object",
            "properties": properties,
            "required": [p.name for p in self.parameters if p.required],
        }
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }


def _parameter(r: Rng, taken: list[Parameter]) -> Parameter:
    x = r.random()
    required = r.random() < 0.6
    if x < 0.12:
        options = tuple(r.sample(r.choice(LISTS["choices"]), 2)) if r.random() < 0.5 else r.choice(LISTS["choices"])
        name = r.choice(["mode", "format", "order", "kind", "unit", "style", "type", "from_unit", "to_unit", noun(r)])
        parameter = Parameter(name, "enum", required, options)
    elif x < 0.2:
        parameter = Parameter(
            r.choice(["bold", "force", "recursive", "preview", "staged", "visible", noun(r), f"with_{noun(r)}"]),
            "bool",
            required,
        )
    else:
        again = [p.kind for p in taken if p.kind in TYPICAL]
        kind = r.choice(again) if again and r.random() < 0.25 else r.choice(list(TYPICAL))
        name, y = r.choice(TYPICAL[kind]), r.random()
        if y < 0.2:
            name = f"{noun(r)}_{name.split('_')[-1]}"
        elif y < 0.35:
            name = noun(r)
        elif y < 0.42:
            name = f"{r.choice(['from', 'to', 'max', 'new', 'old', 'start', 'end'])}_{noun(r)}"
        parameter = Parameter(name, kind, required)
    parameter.phrases = _phrases(r, parameter, [p.kind for p in taken])
    return parameter


def _phrases(r: Rng, p: Parameter, kinds: list[str]) -> list[str]:
    words = p.name.replace("_", " ")
    if p.kind == "bool":
        return [f"with {words}", f"{words}", f"make it {words}"]
    named = [
        f"with {words} {{v}}",
        f"{words} {{v}}",
        f"where {words} is {{v}}",
        f"the {words} should be {{v}}",
        f"set {words} to {{v}}",
        f"using {{v}} as {words}",
    ]
    for part in p.name.split("_"):
        if part in DIRECTED:
            return DIRECTED[part] * 2 + r.sample(named, 1)
    if p.kind == "enum":
        return ["{v}", "in {v}", f"{{v}} {words}", "as {v}", *r.sample(named, 2)]
    natural = NATURAL[p.kind]
    return r.sample(natural, min(3, len(natural))) + r.sample(named, 1) if p.kind not in kinds else named


def _tool(r: Rng, server: str, kin: ProceduralTool | None) -> ProceduralTool:
    """A random tool; with `kin` given, one that shares its verb or its noun, so that telling them apart takes care."""
    verb = r.choice(list(VERBS)) if r.random() < 0.9 else made_up(r, 2)
    words = [noun(r)] if r.random() < 0.55 else [r.choice([noun(r), r.choice(LISTS["adjectives"])]), noun(r)]
    if kin is not None and r.random() < 0.5:
        old = kin.name.split("__")[-1].replace("-", "_").split("_")
        if len(old) > 1:
            verb, words = (old[0], words) if r.random() < 0.4 else (verb, old[1:])
    plain = [verb, *words]
    style = r.random()
    name = (
        "_".join(plain)
        if style < 0.75
        else verb + "".join(w.capitalize() for w in words)
        if style < 0.85
        else "-".join(plain)
    )
    if r.random() < 0.07:
        name = "_".join([*words, verb])
    if r.random() < 0.08 and server.isalpha():
        name = f"{server}_{name}"
    thing = " ".join(words)
    said = VERBS.get(verb, [verb])
    article = r.choice(["a", "the", "the", "my", "that", ""])
    heads = [" ".join(f"{s} {article} {thing}".split()) for s in (r.choice(said), r.choice(said), verb)]
    if r.random() < 0.3:
        heads.append(f"{r.choice(said)} {words[-1]}")
    synonym = r.choice(said) if r.random() < 0.4 and said[0].isalpha() else verb
    ending = r.choice(
        ["", "", "", f" in a {noun(r)}", f" with optional {noun(r)}", f" for the {noun(r)}", f" and its {noun(r)}s"]
    )
    description = f"{synonym.capitalize()} {r.choice(['a', 'the', ''])} {thing}{ending}".replace("  ", " ") + r.choice(
        ["", "."]
    )
    parameters: list[Parameter] = []
    for _ in range(r.choice([0, 1, 1, 2, 2, 2, 3, 3, 4, 5])):
        parameter = _parameter(r, parameters)
        if parameter.name not in {p.name for p in parameters}:
            parameters.append(parameter)
    return ProceduralTool(f"{server}__{name}" if server else name, description, heads, parameters)


def say(value: Any) -> str:
    """A value as a user says it."""
    if isinstance(value, list):
        words = [str(v) for v in value]
        return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
    return str(value)


@dataclass
class _Call:
    text: str
    name: str
    arguments: dict[str, Any]


def _value(r: Rng, p: Parameter) -> Any:
    if p.kind == "enum":
        return r.choice(p.options)
    return r.random() < 0.5 if p.kind == "bool" else VALUES[p.kind](r)


def _with_distractor(r: Rng, p: Parameter, phrase: str, value: Any) -> str:
    other = say(_value(r, p))
    said = say(value)
    turns = [
        f"{said}, not {other}",
        f"{said} instead of {other}",
        f"{other}, sorry, I mean {said}",
        f"{said} rather than {other}",
    ]
    return phrase.replace("{v}", r.choice(turns))


def _call(r: Rng, tool: ProceduralTool, known: dict[str, Any] | None = None, distract: float = 0.06) -> _Call:
    """A call of `tool` and the words that ask for it; `known` values come from an earlier result and are not said."""
    known = known or {}
    arguments: dict[str, Any] = {}
    parts: list[str] = []
    for p in tool.parameters:
        if p.name in known:
            arguments[p.name] = known[p.name]
            continue
        if not p.required and r.random() < 0.55:
            continue
        value = arguments[p.name] = _value(r, p)
        phrase = r.choice(p.phrases)
        if p.kind == "bool":
            words = p.name.replace("_", " ")
            phrase = phrase if value else r.choice([f"without {words}", f"not {words}", f"no {words}"])
        elif p.kind not in ("list", "enum") and r.random() < distract:
            phrase = _with_distractor(r, p, phrase, value)
        parts.append(phrase.replace("{v}", say(value)))
    if r.random() < 0.4:
        r.shuffle(parts)
    if known:
        parts.append(r.choice(["with that", "on it", "in that one", "using the new one", "there"]))
    front = len(parts) > 0 and r.random() < 0.12
    text = [parts[0] + ",", r.choice(tool.heads), *parts[1:]] if front else [r.choice(tool.heads), *parts]
    return _Call(r.choice([" ", " ", " ", ", "]).join(text), tool.name, arguments)


def _message(calls: list[_Call]) -> Message:
    functions = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls]
    return {"role": "assistant", "content": "", "tool_calls": functions}


def _result(r: Rng, keep: dict[str, Any] | None = None) -> str:
    """What a tool might answer; the values of `keep` stand in it."""
    keep = keep or {}
    extra = {noun(r): r.choice([_title, _integer, _identifier])(r) for _ in range(r.randint(0, 2))}
    if r.random() < 0.5:
        return json.dumps(
            {**extra, **keep} if r.random() < 0.5 else {**keep, **extra},
            ensure_ascii=False,
            indent=r.choice([None, None, 2]),
        )
    text = r.choice(["Done", "Created", "OK", f"{noun(r).capitalize()} ready", "Success", _sentence(r)])
    return f"{text}: " + ", ".join(f"{k} {say(v)}" for k, v in (keep | extra).items()) if keep or extra else f"{text}."


OPENINGS = [
    "",
    "",
    "",
    "",
    "please ",
    "can you ",
    "could you ",
    "hi, ",
    "I want you to ",
    "now ",
    "hey, ",
    "I would like you to ",
]
JOINS = [". Then ", " and then ", ". Also ", ", and ", ". After that ", "; also ", " and ", ". Next, "]


def _request(r: Rng, texts: list[str]) -> str:
    text = r.choice(OPENINGS) + texts[0] + "".join(r.choice(JOINS) + t for t in texts[1:])
    text = text[0].upper() + text[1:] if r.random() < 0.85 else text
    return text + r.choice([".", ".", "", "?", ", please.", ". Thanks!"])


def _closing(r: Rng, result: str) -> Message:
    first = result.split("\n")[0][:40]
    return {
        "role": "assistant",
        "content": r.choice(["Done.", "Done.", f"Done: {first}", f"Here is the result: {first}"]),
    }


def _server(r: Rng) -> str:
    return (
        ""
        if r.random() < 0.08
        else r.choice([noun(r), made_up(r, 2), noun(r) + r.choice(["-server", "_tools", "kit"])])
    )


def _toolbox(r: Rng, size: int) -> list[ProceduralTool]:
    """`size` tools of one to three servers, with kin among them."""
    servers = [_server(r) for _ in range(r.choice([1, 1, 2, 3]))]
    tools: list[ProceduralTool] = []
    while len(tools) < size:
        kin = r.choice(tools) if tools and r.random() < 0.6 else None
        tool = _tool(r, kin.name.split("__")[0] if kin and "__" in kin.name else r.choice(servers), kin)
        if tool.name not in {t.name for t in tools} and len(tool.name) <= 64:
            tools.append(tool)
    return tools


def conversation(r: Rng, ease: float = 0.0) -> Conversation:
    """One random conversation. `ease` is the share of the simplest kind: one call, one to three tools."""
    if r.random() < ease:
        tools = _toolbox(r, r.choice([1, 1, 2, 3]))
        pattern = "single"
    else:
        tools = _toolbox(r, r.choice([3, 4, 4, 4, 5]))
        pattern = r.choices(["single", "parallel", "sequential", "conditional"], [40, 22, 26, 12])[0]
    build = {"single": _single, "parallel": _parallel, "sequential": _sequential, "conditional": _conditional}[pattern]
    messages = build(r, r.sample(tools, len(tools)))
    return Conversation([t.spec() for t in tools], messages)


def _finish(r: Rng, text: list[str], turns: list[tuple[list[_Call], list[str]]]) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": _request(r, text)}]
    for calls, results in turns:
        messages.append(_message(calls))
        messages += [
            {"role": "tool", "name": c.name, "content": result} for c, result in zip(calls, results, strict=True)
        ]
    return [*messages, _closing(r, turns[-1][1][-1])]


def _single(r: Rng, tools: list[ProceduralTool]) -> list[Message]:
    call = _call(r, tools[0])
    return _finish(r, [call.text], [([call], [_result(r)])])


def _parallel(r: Rng, tools: list[ProceduralTool]) -> list[Message]:
    chosen = [tools[0]] * 2 if r.random() < 0.25 and tools[0].parameters else tools[: r.choice([2, 2, 3])]
    calls = [_call(r, tool) for tool in chosen]
    joins = [c.text for c in calls]
    joins[-1] += r.choice(["", "", " at the same time", ", both at once"])
    return _finish(r, joins, [(calls, [_result(r) for _ in calls])])


def _sequential(r: Rng, tools: list[ProceduralTool]) -> list[Message]:
    turns: list[tuple[list[_Call], list[str]]] = []
    texts: list[str] = []
    known: dict[str, Any] = {}
    for i, tool in enumerate(tools[: r.choice([2, 2, 3])]):
        call = _call(r, tool, {p.name: known[p.name] for p in tool.parameters if p.name in known})
        keep: dict[str, Any] = {}
        following = tools[i + 1] if i + 1 < len(tools) else None
        if following and r.random() < 0.6:
            texty = [p for p in following.parameters if p.kind in ("id", "path", "title", "word")]
            keep = {p.name: VALUES["id" if r.random() < 0.7 else p.kind](r) for p in texty[:1]}
        known = keep or {k: v for k, v in known.items() if r.random() < 0.5}
        texts.append(call.text)
        turns.append(([call], [_result(r, keep)]))
    return _finish(r, texts, turns)


def _conditional(r: Rng, tools: list[ProceduralTool]) -> list[Message]:
    check, then, other = _call(r, tools[0]), _call(r, tools[1]), _call(r, tools[2])
    word = str(r.choice([noun, _integer, _identifier])(r))
    holds = r.random() < 0.5
    result = _result(r, {noun(r): word} if holds else None)
    holds = word in result
    condition = r.choice(
        ["if the result mentions {w}", "if {w} is in there", "if you see {w}", "in case it contains {w}"]
    ).format(w=word)
    negation = r.choice(["otherwise", "if not,", "or else"])
    first, second = r.choice(["; ", ". ", " and "]), r.choice([", ", "; "])
    text = f"{check.text}{first}{condition}, {then.text}{second}{negation} {other.text}"
    taken = then if holds else other
    return _finish(r, [text], [([check], [result]), ([taken], [_result(r)])])
