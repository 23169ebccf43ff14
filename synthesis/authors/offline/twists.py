"""Hard requests: a value that is mentioned and ruled out, or said first and corrected (RISE, section 3.2.3; ours)."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from synthesis.records import Json, Tool, Trajectory
from synthesis.schemas import accepts
from synthesis.text.equality import same_meaning
from synthesis.text.evidence import supported
from synthesis.text.kinds import kind_of, leaves
from synthesis.text.saying import say

TwistKind = Literal["ruled_out", "correction"]
Peers = Callable[[Tool, str, Json], Sequence[Json]]
"""Called as `peers(tool, parameter, value)`: other values that the author could say in this one's place."""

LONGEST = 30
"""Characters of a value that is worth mentioning only to rule it out."""

# Each: the words, and the part of them that mentions the wrong value. The first of each kind end by themselves.
_BRACKETED = {
    "ruled_out": [("{r} (not {w})", "not {w}"), ("{r} (and not {w})", "and not {w}")],
    "correction": [
        ("{w} (no, make that {r})", "{w} (no"), ("{w} (sorry, {r})", "{w} (sorry"),
        ("{w} (no wait, {r})", "{w} (no wait"),
    ],
}  # fmt: skip
_OPEN = {
    "ruled_out": [("{r} rather than {w}", "rather than {w}"), ("{r} and not {w}", "and not {w}"),
                  ("{r} instead of {w}", "instead of {w}")],
    "correction": [("{w}, no wait, {r}", "{w}, no wait"), ("{w}, no, make that {r}", "{w}, no"),
                   ("{w}, sorry, I mean {r}", "{w}, sorry"), ("{w}, or rather {r}", "{w}, or rather")],
}  # fmt: skip
_LATE = [
    ("Sorry, make that {r} instead of {w}.", "instead of {w}"), ("Wait, not {w}: I meant {r}.", "not {w}"),
    ("Correction: {r}, not {w}.", "not {w}"), ("Oh, I said {w}, but it should be {r}.", "I said {w}"),
    ("Hold on, {w} is wrong, I need {r}.", "{w} is wrong"),
    ("On second thought, {r} instead of {w}.", "instead of {w}"),
]  # fmt: skip
_PREPOSITION = re.compile(r"(in|from|to|of|on|for|at|into|under) \{v\}")


@dataclass(frozen=True)
class Twist:
    """The value `wrong` is mentioned for one parameter of one step, and is not meant."""

    kind: TwistKind
    step: int
    parameter: str
    wrong: Json
    late: bool
    """The correction follows at the end of the request, not at once."""


@dataclass(frozen=True)
class Words:
    """A twist in words: `text` says it all, `right` and `wrong` are the parts that mention the two values."""

    text: str
    right: str
    wrong: str


def choose(trajectory: Trajectory, tools: dict[str, Tool], peers: Peers, rng: random.Random) -> Twist | None:
    """Choose what to twist in a trajectory's request; None where no value has a fitting other one.

    The wrong value is of the right one's kind, fits the schema, means something else, and is no part of anything else
    that the request has to say; nor is the right one said twice.
    """
    flowing = {(edge.target, edge.parameter) for edge in trajectory.edges}
    spoken = _everything(trajectory)
    options: list[tuple[int, str, list[Json]]] = []
    for i, step in enumerate(trajectory.steps):
        for parameter, value in step.arguments.items():
            if (i, parameter) in flowing or not _short(value) or spoken.count(say(value)) > 1:
                continue
            wrongs = [w for w in peers(tools[step.tool], parameter, value) if _confusable(value, w)]
            wrongs = [w for w in wrongs if not any(supported(w, text) for text in spoken)]
            if fitting := [w for w in wrongs if accepts(tools[step.tool], parameter, w)]:
                options.append((i, parameter, fitting))
    if not options:
        return None
    index, parameter, wrongs = rng.choice(options)
    kind: TwistKind = rng.choice(["ruled_out", "correction"])
    return Twist(kind, index, parameter, rng.choice(wrongs), late=kind == "correction" and rng.random() < 0.4)


def _everything(trajectory: Trajectory) -> list[str]:
    """Every value that the request may have to say, as text."""
    groups = [step.arguments for step in trajectory.steps]
    texts = [trajectory.condition.value] if trajectory.condition else []
    if trajectory.condition:
        taken = [(step.tool, step.arguments) for step in trajectory.steps]
        branches = [(c.then_tool, c.then_arguments) for c in [trajectory.condition]]
        branches += [(c.else_tool, c.else_arguments) for c in [trajectory.condition]]
        groups += [arguments for tool, arguments in branches if (tool, arguments) not in taken]
    return texts + [say(leaf) for group in groups for value in group.values() for leaf in leaves(value)]


def _short(value: Json) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    return len(say(value)) <= LONGEST and kind_of(value) != "statement" and "\n" not in say(value)


def _confusable(value: Json, other: Json) -> bool:
    """Of the same kind, with another meaning, and neither says the other."""
    if not _short(other) or kind_of(value) != kind_of(other) or same_meaning(value, other):
        return False
    return not supported(value, say(other)) and not supported(other, say(value))


def inline(kind: TwistKind, way: str, right: str, wrong: str, rng: random.Random) -> Words:
    """Say both values where `way` has `{v}`; what goes on after the value gets a form that is closed by itself."""
    if kind == "ruled_out" and (match := _PREPOSITION.fullmatch(way)) and rng.random() < 0.4:
        return Words(f"not {match[1]} {wrong} but {match[1]} {right}", right, f"not {match[1]} {wrong}")
    forms = _BRACKETED[kind] if not way.endswith("{v}") else _BRACKETED[kind] + _OPEN[kind]
    text, mention = rng.choice(forms)
    return Words(way.replace("{v}", text.format(r=right, w=wrong)), right, mention.format(w=wrong))


def late(right: str, wrong: str, rng: random.Random) -> Words:
    """Say the correction as a sentence of its own."""
    text, mention = rng.choice(_LATE)
    return Words(text.format(r=right, w=wrong), right, mention.format(w=wrong))
