"""Deviating values: what a value may be mistaken for, by the kind of value and the kind of mistake (RISE, 3.3.2).

The paper asks a language model for hypernyms, co-hyponyms, irrelevant values, antonyms and lexically similar values.
For numbers, dates, cells and the like those words need a reading, which is ours: broader = rounded or coarser, narrower
= finer, co-hyponym = a neighbour, irrelevant = far away or of another sort, antonym = the opposite end, lexical =
misread. Nothing here knows a server; what a phrasebook offers for the parameter comes in as `peers`.
"""

import posixpath
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from synthesis.authors.offline import shapes
from synthesis.authors.offline.shapes import Option
from synthesis.records import Json, MutationKind
from synthesis.schemas import properties, resolved
from synthesis.text.equality import normal_form
from synthesis.text.kinds import Kind, kind_of
from synthesis.text.lexicon import Words, lexicon
from synthesis.text.similarity import looks_alike, typos

EACH = 2
"""At most so many values of each kind of mutation, so that no kind crowds out the others."""

_EXAMPLES = re.compile(r"(?i)e\.g\.|\bexamples?\b|such as|\blike\b")
_QUOTED = re.compile("[\"'`\u2018\u201c]([^\"'`\u2018\u2019\u201c\u201d\n]{1,40})[\"'`\u2019\u201d]")
_ITEM = re.compile(r"(?<![\w-])(?!or\b|and\b)[A-Za-z][\w-]*")
_LISTS = re.compile(r"[A-Za-z][\w-]*(?:(?:, or |, | or |/|\|)[A-Za-z][\w-]*)+")
"""Lists of single words: `left, center or right`, `rows|columns`."""

_SHAPED: dict[Kind, Callable[[str, random.Random], list[Option]]] = {
    "date": shapes.dates, "time": shapes.times, "zone": shapes.zones, "color": shapes.colors, "path": shapes.paths,
    "cell": shapes.cells, "expression": shapes.expressions, "statement": shapes.statements, "address": shapes.addresses,
    "identifier": shapes.identifiers,
}  # fmt: skip


def deviations(
    value: Json,
    schema: dict[str, Any],
    parameter: str,
    peers: Iterable[Json],
    root: dict[str, Any],
    rng: random.Random,
    words: Words | None = None,
    files: Sequence[str] = (),
) -> list[Option]:
    """Return the mutation pool of one value: (kind, value) pairs, no value twice, none equal to the given one.

    `schema` is the parameter's own schema and `root` the tool's; `peers` are other values known for the parameter;
    `words` relates the words of texts, by default the project's lexicon; `files` are the paths that exist: a path that
    exists deviates to another of its kind first, which a tool then takes without complaint.
    Whether a value passes the schema, and whether the request supports it, is for the caller to check.
    """
    hint = f"{parameter} {schema.get('description', '')}"
    others = [peer for peer in peers if type(peer) is type(value) and normal_form(peer) != normal_form(value)]
    found = _Maker(root, rng, words or lexicon(), files).options(value, schema, hint, others)
    kinds: dict[MutationKind, list[Json]] = {}
    seen = {normal_form(value)}
    for kind, option in found:
        if normal_form(option) not in seen and len(kinds.setdefault(kind, [])) < EACH:
            seen.add(normal_form(option))
            kinds[kind].append(option)
    return [(kind, option) for kind, options in kinds.items() for option in options]


def _peers(value: Json, peers: list[Json], rng: random.Random) -> list[Option]:
    """Sort known other values: an opposite, one that looks alike, one with nothing in common, or simply a sibling."""
    drawn = rng.sample(peers, min(len(peers), 8))
    return [(_relation(value, peer), peer) for peer in drawn]


def _relation(value: Json, other: Json) -> MutationKind:
    if not isinstance(value, str) or not isinstance(other, str):
        return "co_hyponym"
    lex = lexicon()
    if other.casefold() in (word.casefold() for word in lex.opposites(value)):
        return "antonym"
    mine, theirs = set(re.findall(r"\w+", value.casefold())), set(re.findall(r"\w+", other.casefold()))
    if mine < theirs:
        return "hyponym"
    if theirs < mine and theirs:
        return "hypernym"
    return "lexical_similarity" if looks_alike(value, other) else "co_hyponym"


def _choices(value: str, choices: Iterable[str], rng: random.Random) -> list[Option]:
    """Other members of a closed set: all of one class, so none is irrelevant."""
    drawn = list(dict.fromkeys(choices))
    return [(_relation(value, choice), choice) for choice in rng.sample(drawn, len(drawn))]


def closed_set(value: str, schema: dict[str, Any], peers: Sequence[Json]) -> list[str]:
    """The members but `value` of the closed set that a parameter takes its value from; empty where it is open.

    That is an enumeration, or what the description lists as choices, and does not call examples, with `value` among
    them. Other known values (`peers`) of the same set count too.
    """
    if listed := [choice for choice in schema.get("enum", []) if isinstance(choice, str)]:
        return [choice for choice in listed if choice != value]
    description = str(schema.get("description", ""))
    if _EXAMPLES.search(description):
        return []
    for items in (_QUOTED.findall(description), *(_ITEM.findall(part) for part in _LISTS.findall(description))):
        if len(items) > 1 and value in items:
            known = [peer for peer in peers if isinstance(peer, str) and _ITEM.fullmatch(peer)]
            return [item for item in dict.fromkeys([*items, *known]) if item != value]
    return []


def texts(value: str, rng: random.Random, known: Words) -> list[Option]:
    """Free text, names and single words: one word changed, added or taken away, or the whole replaced."""
    lex = lexicon()
    words = value.split()
    found: list[Option] = []
    relations: list[tuple[MutationKind, Callable[[str], list[str]]]] = [
        ("antonym", known.opposites),
        ("co_hyponym", known.siblings),
        ("hypernym", known.hypernyms),
        ("hyponym", known.hyponyms),
        ("lexical_similarity", known.confusions),
    ]
    for kind, related in relations:
        for i in rng.sample(range(len(words)), len(words)):
            options = related(words[i].strip(".,;:!?"))
            found += [
                (kind, " ".join([*words[:i], o, *words[i + 1 :]])) for o in rng.sample(options, min(2, len(options)))
            ]
    found += _resized(words, rng)
    found += [("lexical_similarity", typo) for typo in typos(value, rng)[:2]]
    strange = rng.sample(lex.unrelated, 2)
    found.append(("irrelevance", strange[0].capitalize() if value[:1].isupper() else strange[0]))
    found.append(
        ("irrelevance", " ".join([strange[1].capitalize() if value[:1].isupper() else strange[1], *words[1:]]))
    )
    return [(kind, option) for kind, option in found if option.strip()]


def _resized(words: list[str], rng: random.Random) -> list[Option]:
    """Broader by leaving words out, narrower by a modifier in front."""
    found: list[Option] = []
    if len(words) > 1:
        found += [("hypernym", " ".join(words[1:]) if len(words) == 2 and words[0].islower() else " ".join(words[:-1]))]
    if len(words) > 3:
        found += [("hypernym", " ".join(words[: (len(words) + 1) // 2]))]
    if words and not (len(words) == 1 and (len(words[0]) < 5 or lexicon().hypernyms(words[0]))):
        for modifier in rng.sample(lexicon().modifiers, 2):
            capital = words[0][:1].isupper()
            sentence = capital and len(words) > 1 and words[1].islower() and words[0][1:].islower()
            rest = [words[0].lower() if sentence else words[0], *words[1:]]  # not so in names and titles
            found.append(("hyponym", " ".join([modifier.capitalize() if capital else modifier, *rest])))
    return found


@dataclass(frozen=True)
class _Maker:
    """Walks into lists and objects; `root` is the tool's schema, in which references point."""

    root: dict[str, Any]
    rng: random.Random
    words: Words
    files: Sequence[str] = ()

    def options(self, value: Json, schema: Any, hint: str, peers: list[Json]) -> list[Option]:
        schema = resolved(schema, self.root) if isinstance(schema, dict) else {}
        if isinstance(value, bool):
            return [("antonym", not value)]
        if isinstance(value, list):
            return self._list(value, schema, hint, peers)
        if isinstance(value, dict):
            return self._object(value, schema, peers)
        if isinstance(value, int | float):
            own = shapes.numbers(value, self.rng)
        elif isinstance(value, str):
            if choices := closed_set(value, schema, peers):
                return _choices(value, choices, self.rng)
            if value in self.files and (others := self._other_files(value)):
                return others
            shaped = _SHAPED.get(kind_of(value, hint))
            own = shaped(value, self.rng) if shaped else texts(value, self.rng, self.words)
        else:
            return []
        known = _peers(value, peers, self.rng)
        return own + known if kind_of(value, hint) == "zone" else known[:2] + own + known[2:]

    def _other_files(self, value: str) -> list[Option]:
        """Existing files with the same ending, the one with the most similar name as its confusion."""
        ending = posixpath.splitext(value)[1]
        same = [path for path in self.files if path != value and posixpath.splitext(path)[1] == ending]
        return _choices(value, same, self.rng)

    def _list(self, value: list[Json], schema: dict[str, Any], hint: str, peers: list[Json]) -> list[Option]:
        """One item changed, left out (narrower) or added from a peer (broader); or a peer as a whole."""
        rng = self.rng
        found = _peers(value, peers, rng)[:2]
        for i in rng.sample(range(len(value)), min(len(value), 3)):
            for kind, option in self.options(value[i], schema.get("items"), hint, [])[:12]:
                found.append((kind, [*value[:i], option, *value[i + 1 :]]))
        if len(value) > 1:
            found += [("hyponym", value[:-1]), ("hyponym", value[1:])]
        extra = [item for peer in peers for item in peer if item not in value and not isinstance(item, list | dict)]
        if extra and not any(isinstance(item, list | dict) for item in value):
            found.append(("hypernym", [*value, rng.choice(extra)]))
        return rng.sample(found, len(found))

    def _object(self, value: dict[str, Json], schema: dict[str, Any], peers: list[Json]) -> list[Option]:
        """One member changed, or a peer as a whole."""
        found = _peers(value, peers, self.rng)[:3]
        members = properties(schema)
        for key, member in value.items():
            inner = members.get(key, {})
            hint = f"{key} {inner.get('description', '')}"
            known = [p[key] for p in peers if key in p and type(p[key]) is type(member) and p[key] != member]
            found += [(kind, {**value, key: option}) for kind, option in self.options(member, inner, hint, known)[:10]]
        return self.rng.sample(found, len(found))
