"""One call in a user's words: a clause like "read the cells A1:B4 on the sheet Orders in /data/sales.xlsx"."""

import random
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from synthesis.authors.offline.phrasebook import SLOT, ToolEntry
from synthesis.authors.offline.twists import Twist, inline, late
from synthesis.records import Json
from synthesis.text.kinds import kind_of
from synthesis.text.saying import say, spaced

Mood = Literal["imperative", "question", "statement"]
_QUESTIONS = re.compile(
    r"(what|which|who|whose|where|when|why|how|is|are|was|were|does|do|did|has|have|can|could|will|would|should)\b",
    re.I,
)
FRONT = re.compile(r"(in|on|from|for|with|using|at|under|within) ")
_QUOTED = re.compile(r"[\"'“]\s*\{")
_SHORT = re.compile(r"(in|from|to|of|on|for|at|into|with|under) \{v\}")


@dataclass(frozen=True)
class Clause:
    """Words for one call, lower case at the start and without a full stop."""

    text: str
    mood: Mood
    evidence: dict[str, str] = field(default_factory=dict)
    """Per parameter that is said, the words that say it; they stand in `text`, or in an earlier clause."""
    values: dict[str, str] = field(default_factory=dict)
    """Path values that this clause says, with their evidence, so that a later clause may say "the same file"."""
    ruled_out: str = ""
    """The words that mention the wrong value of a twist."""
    afterthought: str = ""
    """A correction, as a sentence for the end of the request."""


def mood_of(head: str) -> Mood:
    """Tell how a head speaks: as a question, about oneself ("I need a branch"), or as an order."""
    if _QUESTIONS.match(head) or re.search(r", (what|when|which|where|how)\b", head):
        return "question"
    return "statement" if re.match(r"(I|we|my|there|the)\b", head) else "imperative"


def spoken(value: Json, phrase: str, rng: random.Random, fixed: bool = False) -> str:
    """Say a value inside `phrase`; a longer piece of free text gets quotation marks, so that its end can be seen.

    `fixed` values are one of a known few, and need none.
    """
    text = say(value)
    words = len(text.split())
    free = not fixed and words > 1 and isinstance(value, str) and '"' not in text and kind_of(value) in ("text", "name")
    if free and not _QUOTED.search(phrase) and (words > 2 or text[-1] in ".,;:!?" or rng.random() < 0.3):
        return f'"{text}"'
    return text


def clause(
    entry: ToolEntry,
    arguments: Mapping[str, Json],
    hidden: Mapping[str, str],
    earlier: Mapping[str, str],
    rng: random.Random,
    avoid: Collection[Mood] = (),
    fixed: Collection[str] = (),
    twist: Twist | None = None,
) -> Clause:
    """Put one call into words.

    `hidden` names the arguments that come from an earlier result, with the noun for what they come from ("workbook");
    they are referred to. `earlier` holds the paths already said, with their evidence. Heads of a mood in `avoid` are
    taken only if there is no other. `fixed` names the enumerated parameters. A `twist` mentions a wrong value, too.
    """
    stated = {parameter: value for parameter, value in arguments.items() if parameter not in hidden}
    text = _head(entry, stated, rng, avoid)
    mood = mood_of(text)
    slots = dict.fromkeys(SLOT.findall(text))
    said: dict[str, _Said] = {}
    for slot in slots:
        said[slot] = _say(text.replace("{" + slot + "}", "{v}"), stated[slot], _for(twist, slot), rng, slot in fixed)
        text = said[slot].text
    phrases: list[str] = []
    for parameter, value in stated.items():
        if parameter not in slots:
            said[parameter] = _phrase(entry, parameter, value, earlier, rng, parameter in fixed, _for(twist, parameter))
            phrases.append(said[parameter].text)
    if rng.random() < 0.3:
        rng.shuffle(phrases)
    phrases += [_reference(entry, parameter, noun, rng) for parameter, noun in hidden.items()]
    phrases.sort(key=lambda phrase: phrase.startswith("and "))
    evidence = {parameter: words.evidence for parameter, words in said.items()}
    paths = {v: evidence[p] for p, v in stated.items() if isinstance(v, str) and kind_of(v) == "path" and "." in v}
    twisted = said[twist.parameter] if twist else _Said("", "")
    return Clause(_joined(text, phrases, rng), mood, evidence, paths, twisted.ruled_out, twisted.afterthought)


@dataclass(frozen=True)
class _Said:
    """One value in words: the words around it too, those that prove it, and what a twist adds."""

    text: str
    evidence: str
    ruled_out: str = ""
    afterthought: str = ""


_SINGULAR = {
    "inches": "inch",
    "points": "point",
    "lines": "line",
    "entries": "entry",
    "rows": "row",
    "columns": "column",
}
_ONE = re.compile(rf"{{v}} ({'|'.join(_SINGULAR)})\b")
"""Of one thing nobody speaks in the plural."""


def _for(twist: Twist | None, parameter: str) -> Twist | None:
    return twist if twist and twist.parameter == parameter else None


def _say(way: str, value: Json, twist: Twist | None, rng: random.Random, fixed: bool) -> _Said:
    """Put `value` where `way` has `{v}`. Inside quotation marks a wrong value can only be corrected afterwards."""
    right = spoken(value, way, rng, fixed)
    if twist is None:
        way = _ONE.sub(lambda match: "{v} " + _SINGULAR[match[1]], way) if right == "1" else way
        return _Said(way.replace("{v}", right), right)
    wrong = f'"{say(twist.wrong)}"' if right.startswith('"') else say(twist.wrong)
    if twist.late or _QUOTED.search(way):
        words = late(right, wrong, rng)
        return _Said(way.replace("{v}", wrong), words.right, words.wrong, words.text)
    words = inline(twist.kind, way, right, wrong, rng)
    return _Said(words.text, words.right, words.wrong)


def _head(entry: ToolEntry, stated: Mapping[str, Json], rng: random.Random, avoid: Collection[Mood]) -> str:
    """One of the heads that say what is stated, and as much of it as heads can where there are several such."""
    fitting = [head for head in entry.heads if set(SLOT.findall(head)) <= set(stated)]
    preferred = [head for head in fitting if mood_of(head) not in avoid] or fitting
    most = max((len(SLOT.findall(head)) for head in preferred), default=0)
    fullest = [head for head in preferred if len(SLOT.findall(head)) == most]
    several = fullest if len(fullest) > 1 else preferred
    return rng.choice(several or [f"do that with the {entry.object}"])


def _phrase(
    entry: ToolEntry,
    parameter: str,
    value: Json,
    earlier: Mapping[str, str],
    rng: random.Random,
    fixed: bool,
    twist: Twist | None,
) -> _Said:
    """Return the phrase for one stated argument; it is its own evidence, unless it mentions a wrong value."""
    name = spaced(parameter)
    plain = [f"with {name} {{v}}", f"with {{v}} as {name}", f"where {name} is {{v}}"]
    ways = entry.ways(parameter, value) or plain
    short = [way for way in ways if _SHORT.fullmatch(way)]
    if not twist and isinstance(value, str) and value in earlier and short and rng.random() < 0.25:
        text = rng.choice(short).replace("{v}", rng.choice(["the same file", "that same file"]))
        return _Said(text, earlier[value])
    said = _say(rng.choice(ways), value, twist, rng, fixed)
    return said if twist else _Said(said.text, said.text)


def _reference(entry: ToolEntry, parameter: str, noun: str, rng: random.Random) -> str:
    """Refer to an argument that only a result shows."""
    if known := entry.obscured.get(parameter):
        return rng.choice(known)
    ways = entry.phrases.get(parameter, [])
    short = [way for way in ways if _SHORT.fullmatch(way)] if isinstance(ways, list) else []
    return rng.choice(short or ["with {v}", "for {v}"]).replace("{v}", f"that {noun}")


def _joined(head: str, phrases: list[str], rng: random.Random) -> str:
    """Put the phrases behind the head, or one of them before it; commas part the later ones."""
    front = ""
    fronts = [i for i, phrase in enumerate(phrases) if FRONT.match(phrase)]
    if fronts and not _QUESTIONS.match(head) and rng.random() < 0.12:
        front = phrases.pop(rng.choice(fronts)) + ", "
    near, far = phrases[:2], phrases[2:]
    return front + ", ".join([" ".join([head, *near]), *far])
