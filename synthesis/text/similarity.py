"""How alike two strings look, and how one gets misspelt."""

import random

from rapidfuzz.distance import Levenshtein


def similarity(first: str, second: str) -> float:
    """Return 1 minus the Levenshtein distance over the longer length: 1 for equal strings, 0 for nothing in common."""
    first, second = first[:60].casefold(), second[:60].casefold()
    return 1 - Levenshtein.distance(first, second) / max(len(first), len(second), 1)


def looks_alike(first: str, second: str) -> bool:
    """Tell whether two strings are easily taken for each other: a similarity above 0.75."""
    lengths = sorted((len(first[:60]), len(second[:60])))
    return lengths[0] > 0.75 * lengths[1] and similarity(first, second) > 0.75


def typos(text: str, rng: random.Random) -> list[str]:
    """Return misreadings of `text` in random order: letters swapped, doubled or left out, a digit replaced."""
    inside = [
        i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha() and text[i] != text[i + 1]
    ]
    found: list[str] = []
    for i in rng.sample(inside, min(3, len(inside))):
        found.append(text[:i] + text[i + 1] + text[i] + text[i + 2 :])
        found.append(text[:i] + text[i] + text[i:])
        found.append(text[:i] + text[i + 1 :])
    digits = [i for i, character in enumerate(text) if character.isdigit()]
    for i in rng.sample(digits, min(2, len(digits))):
        found.append(text[:i] + rng.choice([d for d in "0123456789" if d != text[i]]) + text[i + 1 :])
    return rng.sample(found, len(found))
