"""Ways of speaking: clauses to one request, plain or chatty, step after step, side by side, or on a condition."""

import random
import re
from collections.abc import Sequence

from synthesis.authors.offline.wording import FRONT, Clause
from synthesis.records import Pattern

STYLES = ("plain", "polite", "terse", "chatty", "formal", "hurried", "itemised")
_ORDERS = {
    "plain": ["", "", "now ", "go and "],
    "polite": ["please ", "could you please ", "can you please ", "would you ", "could you "],
    "terse": [""],
    "chatty": ["can you ", "could you ", "I need you to ", "would you mind helping: ", "please "],
    "formal": ["I would like you to ", "I need you to ", "I want you to ", "your task: "],
    "hurried": ["", "quick, ", "pls ", "need this now: "],
    "itemised": [""],
}
_QUESTIONS = {
    "polite": ["please tell me: ", "could you tell me: ", "I would like to know: "],
    "chatty": ["quick question: ", "I was wondering: ", "do you know this: "],
    "formal": ["I would like to know: ", "I need to know: "],
    "hurried": ["quick: ", ""],
}
_GREETINGS = [
    "Hi there!", "Hello!", "Hey!", "Good morning!", "Hi, me again.", "Hi, I am back from lunch.",
    "Hey, I am getting ready for a meeting.", "Hello, I am a bit lost here.", "Hi, my boss is asking.",
    "So, I am tidying things up.", "Hi, small favour.", "Hey, sorry to bother you.", "Hi, I have to finish this today.",
    "Morning! I could use a hand.",
]  # fmt: skip
_THANKS = ["Thanks!", "Thank you!", "Thanks a lot.", "Much appreciated.", "That would help a lot.", "Cheers!"]
_THEN = {
    "": [
        ". Then ", ", then ", " and then ", ". After that, ", "; after that ", ". Next, ", ". When that is done, ",
        ". Afterwards ",
    ],
    "terse": [", then ", "; then ", ". Then "],
    "hurried": [" then ", " and then ", ", then ", ", after that "],
}  # fmt: skip
_ALSO = {
    "": [
        " and ",
        ". Also, ",
        ", and also ",
        "; also ",
        ". Besides that, ",
        ". At the same time, ",
        ". In the same go, ",
    ],
    "terse": ["; also ", ", also ", " and "],
    "hurried": [" and ", " and also ", ", also "],
}
_CONDITIONS = [
    "if the result mentions {w}", "if {w} is in there", "if you see {w}", "in case it contains {w}", "if it says {w}",
    "if {w} shows up in the result", "should the answer contain {w}", "if you find {w} in it",
]  # fmt: skip
_OTHERWISE = [", otherwise ", "; otherwise ", ". Otherwise, ", "; if not, ", ". If not, ", ", or else "]
_FINALLY = [". In either case, then ", ". After that, either way, ", ". Whatever comes out, then "]


def order_of_styles(pattern: Pattern, rng: random.Random) -> list[str]:
    """Return the styles that suit a pattern in a random order; a list of items needs several plain steps."""
    styles = [style for style in STYLES if style != "itemised" or pattern in ("sequential", "parallel")]
    rng.shuffle(styles)
    return styles


def request(clauses: Sequence[Clause], joins: Sequence[str], style: str, rng: random.Random) -> str:
    """Join clauses to one request. `joins[i]` stands before clause `i`; the first is the opening (see `opening`)."""
    asks = clauses[0].mood == "question" or re.match(r"(can|could|would) ", joins[0]) is not None
    text = joins[0] + clauses[0].text
    for part, join in zip(clauses[1:], joins[1:], strict=True):
        if asks and (join.startswith(".") or (clauses[0].mood == "question" and style != "hurried")):
            join, asks = _after_question(join), False
        text += join + (_capital(_ordered(part)) if join == "? " else _ordered(part))
    return _finished(text, asks, style, rng)


def opening(first: Clause, style: str, rng: random.Random) -> str:
    """Choose the words before the first clause, to suit its mood."""
    if first.mood == "question":
        return rng.choice(_QUESTIONS.get(style, [""]))
    if FRONT.match(first.text):
        return ""
    if first.mood == "statement":
        return "hello, " if style == "polite" else ""
    return rng.choice(_ORDERS[style])


def sequence(count: int, style: str, rng: random.Random) -> list[str]:
    """Choose the joins of steps that follow on each other."""
    joins = _THEN.get(style, _THEN[""])
    return rng.sample(joins * (count // len(joins) + 1), count)


def together(count: int, style: str, rng: random.Random) -> list[str]:
    """Choose the joins of steps that need not wait for each other: never a word of order."""
    if count == 2:
        return [", ", rng.choice([" and ", ", and also "])]
    joins = _ALSO.get(style, _ALSO[""])
    return rng.sample(joins * (count // len(joins) + 1), count)


def items(clauses: Sequence[Clause], ordered: bool, rng: random.Random) -> str:
    """Write the clauses as a list, numbered if their order counts."""
    if ordered:
        lead = rng.choice(["Do this step by step: ", "One after the other, please: ", "Work through these in order: "])
        return lead + "; ".join(f"({i}) {_ordered(part)}" for i, part in enumerate(clauses, 1)) + "."
    lead = rng.choice(["Do all of this in one go: ", "I need these things at once: ", "Please do these together: "])
    return lead + "; ".join(_ordered(part) for part in clauses) + "."


def condition(word: str, rng: random.Random) -> str:
    """Choose the join between a check and what depends on its result, on whether `word` stands there."""
    said = f'"{word}"' if " " in word or rng.random() < 0.5 else word
    chosen = rng.choice(_CONDITIONS).format(w=said)
    separator = rng.choice([". ", "; ", " and "])
    return separator + (chosen[0].upper() + chosen[1:] if separator == ". " else chosen) + ", "


def otherwise(rng: random.Random) -> str:
    """Choose the join before the other branch."""
    return rng.choice(_OTHERWISE)


def either_way(rng: random.Random) -> str:
    """Choose the join before steps that follow whichever branch was taken."""
    return rng.choice(_FINALLY)


def _after_question(join: str) -> str:
    """Turn a join into one that ends a question: ", then " gives "? Then "."""
    return "? " + _capital(re.sub(r"^(\.|;|,)?( and)?\s*", "", join))


def _ordered(part: Clause) -> str:
    """Turn a question into an order, for where an order has to stand."""
    if part.mood != "question":
        return part.text
    return f"tell me {part.text}" if re.match(r"wh|how", part.text, re.I) else f"find out: {part.text}"


def _finished(text: str, asks: bool, style: str, rng: random.Random) -> str:
    if style == "hurried":
        return text
    text = _capital(text)
    end = "" if style == "terse" and rng.random() < 0.6 else "?" if asks else "."
    if text.endswith((".", "?", "!")):
        end = ""
    if style == "chatty":
        text = f"{rng.choice(_GREETINGS)} {text}"
    thanks = f" {rng.choice(_THANKS)}" if style in ("chatty", "polite") and rng.random() < 0.4 else ""
    return text + (end or ".") + thanks if thanks and not text.endswith((".", "?", "!")) else text + end + thanks


def _capital(text: str) -> str:
    return text[0].upper() + text[1:] if text[:1].isalpha() else text
