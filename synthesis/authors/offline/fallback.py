"""A phrasebook entry made from a tool's schema alone, for servers that nobody wrote a phrasebook for."""

import ast
import re
from collections.abc import Sequence

from synthesis.authors.offline.guesses import World, parameter_docs, samples
from synthesis.authors.offline.phrasebook import Phrasebook, ToolEntry
from synthesis.records import Json, Tool
from synthesis.schemas import properties, required, schema_of
from synthesis.text.equality import canonical
from synthesis.text.lexicon import lexicon
from synthesis.text.saying import spaced

LONGEST_HEAD = 9
"""Words of a description's first sentence that still make a way of asking."""
_READING = {
    "get", "list", "read", "find", "search", "describe", "check", "show", "fetch", "convert", "calculate", "count",
}  # fmt: skip
_SHORT = {
    "expr": "expression", "eq": "equation", "func": "function", "num": "number", "dir": "directory", "arg": "argument",
    "args": "arguments", "lhs": "left side", "rhs": "right side", "col": "column", "cols": "columns", "db": "database",
    "var": "variable", "msg": "message", "src": "source", "dest": "destination", "max": "maximum", "min": "minimum",
    "lower": "lower bound", "upper": "upper bound",
}  # fmt: skip
"""Short names of parameters, and how a person says them."""
_WAYS: list[tuple[str, list[str]]] = [
    ("source start", ["from {v}"]),
    ("destination target output dest", ["to {v}"]),
    ("path file filename filepath", ["at {v}"]),
    ("paths files", ["namely {v}", "for {v}"]),
    ("directory folder dir", ["in {v}", "in the folder {v}"]),
    ("query keyword search pattern", ["matching {v}", "for {v}"]),
    ("name names title", ["named {v}", "called {v}"]),
    ("content contents text message body note", ["saying {v}", "with the text {v}"]),
]
"""Ways of saying a parameter, by the last word of its name."""
_OPERANDS = {"expression", "equation", "matrix", "data", "text", "value", "number"}
_ORDERS = {"sort by": "sorted by", "order by": "ordered by", "group by": "grouped by", "filter by": "filtered by"}
_JOINT = re.compile(r",| (?:including|using|that|which|with|from|and|for|by|in|as)\b")
_PREPOSITIONS = {"by", "to", "from", "in", "of", "with", "at"}


def make_book(tool: Tool, files: Sequence[str] = ()) -> Phrasebook:
    """Write a one-tool phrasebook from the tool's name, description and schema.

    `files` are the logical paths of the files in the sandbox. A required parameter for which no valid value can be
    found leaves a case that the schema check will refuse, with a reason that names the parameter.
    """
    root = tool.input_schema
    members = properties(root)
    docs = parameter_docs(tool)
    world = World(" ".join(_name_words(tool)), tool.description, tuple(files))
    needed = [name for name in required(root) if name in members]
    pools = {n: samples(n, {**schema, "description": docs[n]}, root, world) for n, schema in members.items()}
    pools = {name: pool for name, pool in pools.items() if pool}
    verb, *rest = _name_words(tool)
    entry = ToolEntry(
        effect="read" if tool.read_only or verb in _READING else "write",
        object=" ".join(rest) or "result",
        heads=heads(tool, needed),
        phrases={name: phrases(name, pool) for name, pool in pools.items()},
        cases=[{name: {"pool": name} for name in needed if name in pools}, *_shown_calls(tool)],
        optional={name: {"pool": name} for name in members if name not in needed and name in pools},
    )
    return Phrasebook(server=tool.server, field="other", pools=pools, tools={tool.name: entry})


def _name_words(tool: Tool) -> list[str]:
    """The tool's name in words, without leading ones that only repeat the server's name."""
    words = spaced(tool.name).split()
    own = set(spaced(tool.server).split())
    while len(words) > 1 and words[0] in own:
        words = words[1:]
    return words


def _shown_calls(tool: Tool) -> list[dict[str, Json]]:
    """Calls that the description shows as examples: `convert(value='100', unit_to='km')`."""
    found: list[dict[str, Json]] = []
    for text in re.findall(rf"{re.escape(tool.name)}\([^()\n]*\)", tool.description):
        try:
            call = ast.parse(text, mode="eval").body
            if isinstance(call, ast.Call):
                found.append({str(word.arg): ast.literal_eval(word.value) for word in call.keywords})
        except (SyntaxError, ValueError):
            continue
    known = set(properties(tool.input_schema))
    return [case for case in found if case and set(case) <= known and "" not in case.values()]


def heads(tool: Tool, needed: Sequence[str] = ()) -> list[str]:
    """Make ways of asking for the tool from its name, and from the first sentence of its description.

    Where these speak of a required parameter ("Factor an expression"), its value gets a place there. A name that says
    neither what is done nor to what ("math_solve") is used on that value.
    """
    words = _name_words(tool)
    verbs = lexicon().verbs
    thing = " ".join(word for word in words[1:] if word != "multiple") if words[0] in verbs else ""
    known = verbs.get(words[0], verbs.get(words[-1], []))
    found = [f"{way} the {thing}" for way in known if thing.endswith("s") or not way.endswith(" all")] if thing else []
    if sentence := _first_sentence(tool.description):
        found += _asked(sentence, thing, _operand(tool, needed))
    if not found:
        place = f" {{{needed[0]}}}" if _is_plain(tool, needed) else ""
        name = " ".join(words)
        used = [f"use {name} on{place}" if place else f"use {name}", f"run {name}"]
        found = [f"{way}{place}" for way in known if place] or used
    return list(dict.fromkeys(_with_place(head, needed) for head in found))


def _operand(tool: Tool, needed: Sequence[str]) -> str:
    """Say " of {expr}" where the first required parameter is what there is a result of."""
    named = bool(needed) and said_name(needed[0]) in _OPERANDS
    return f" of {{{needed[0]}}}" if named and _is_plain(tool, needed) else ""


def _is_plain(tool: Tool, needed: Sequence[str]) -> bool:
    """Whether the first required parameter is a text or a number."""
    return bool(needed) and schema_of(tool, needed[0]).get("type") in ("string", "integer", "number")


def _first_sentence(description: str) -> str:
    """The first sentence in plain words, cut where it goes into detail; empty if it is none, or too long."""
    plain = re.sub(r"[^\x20-\x7e\n]", " ", description).strip()
    if len(re.findall(r"[^\W\da-zA-Z]", description.strip().split("\n")[0])) > 2:
        return ""
    sentence = re.split(r"\.(?:\s|$)|[\n(:;{]| or | and (?:returns?|then) ", plain)[0].strip(" .")
    sentence = re.sub(r"^([A-Z]\w+ly|As|By) (?=\w)", "", sentence)
    while len(sentence.split()) > LONGEST_HEAD and (joints := list(_JOINT.finditer(sentence))):
        sentence = sentence[: joints[-1].start()].strip()
    return sentence if len(sentence.split()) <= LONGEST_HEAD else ""


def _asked(sentence: str, thing: str, operand: str) -> list[str]:
    """Ways of asking for what a sentence says the tool does ("Factor an expression") or gives ("Prime number")."""
    verbs = lexicon().verbs
    first, _, rest = sentence.partition(" ")
    word = first.lower()
    stem = next((w for w in (word, word.removesuffix("s"), word.removesuffix("es")) if w in verbs), "")
    if stem and rest:
        rest = rest.removeprefix("for ") if verbs[stem][0].endswith(" for") else rest
        return [f"{way} {rest}" for way in verbs[stem][:2]]
    if stem:
        return [f"{way} the {thing}" for way in verbs[stem][:2]] if thing else []
    if not re.fullmatch(r"[A-Za-z][\w '-]*", sentence) or len(sentence.split()) > 5:
        return []
    noun = sentence if first.isupper() else sentence[0].lower() + sentence[1:]
    noun += "" if " of " in noun else operand
    return [f"give me the {noun}", f"I need the {noun}", f"work out the {noun}"]


def _with_place(head: str, needed: Sequence[str]) -> str:
    """Put the value of the first required parameter behind the words that name it."""
    for name in needed[:1]:
        noun = said_name(name)
        head = re.sub(rf"\b(?:an?|the) (?:given )?{re.escape(noun)}$", f"the {noun} {{{name}}}", head)
    return head


def said_name(name: str) -> str:
    """The parameter's name as a person would say it: `max_num` gives "maximum number"."""
    return " ".join(_SHORT.get(word, word) for word in spaced(name).split())


def phrases(name: str, values: list[Json]) -> list[str] | dict[str, list[str]]:
    """Make ways of saying a parameter."""
    words = said_name(name)
    if values and all(isinstance(value, bool) for value in values):
        return {
            canonical(True): [f"with {words}", f"with {words} on"],
            canonical(False): [f"without {words}", f"with {words} off"],
        }
    if any(isinstance(item, dict) for value in values if isinstance(value, list) for item in value):
        return ["namely {v}", "as follows: {v}"]
    first, last = words.split()[0], words.split()[-1]
    for cues, ways in _WAYS:
        if last in cues.split():
            return ways
    if len(words.split()) > 1 and (turn := next((word for word in (first, last) if word in ("from", "to")), "")):
        return [f"{turn} {{v}}"]
    if words in _ORDERS:
        return [f"{_ORDERS[words]} {{v}}"]
    if last in _PREPOSITIONS:
        return [f"{words} {{v}}"]
    if len(words) == 1:
        return [f"with {words} = {{v}}", f"for {words} = {{v}}"]
    plural = [] if last.endswith("s") else [f"where the {words} is {{v}}"]
    return [f"with the {words} {{v}}", f"with {{v}} as the {words}", *plural]
