"""How far a mutated value is from the right one: the deviation in the complexity score (RISE, section 3.3.2).

Numbers deviate by their relative difference. For texts the paper takes the distance of BERT embeddings; `meaning` does
so, with the encoder of the extra `embeddings`. `surface`, the default, needs no model: it mixes the difference of the
words with that of the letters.
"""

from collections.abc import Callable, Sequence

from synthesis.records import Json
from synthesis.text.saying import say
from synthesis.text.similarity import similarity

Pairs = Sequence[tuple[Json, Json]]
Distance = Callable[[Pairs], list[float]]
"""Deviations in [0, 1] of pairs of values, (right, mutated)."""


def surface(pairs: Pairs) -> list[float]:
    """Texts by mean of the word difference (1 - Jaccard of the word sets) and the edit distance over the length."""
    return [_plain(before, after, _surface) for before, after in pairs]


def meaning(pairs: Pairs) -> list[float]:
    """Texts by the cosine distance of their embeddings, at most 1; all texts of a call are encoded together.

    Raises `UserError` where the encoder is not installed.
    """
    from synthesis.text.embedding import encode

    texts = list(dict.fromkeys(say(value) for pair in pairs for value in pair))
    vectors = dict(zip(texts, encode(texts), strict=True))

    def apart(first: str, second: str) -> float:
        return min(1.0, max(0.0, 1 - float(vectors[first] @ vectors[second])))

    return [_plain(before, after, apart) for before, after in pairs]


def _plain(before: Json, after: Json, texts: Callable[[str, str], float]) -> float:
    if isinstance(before, bool) or isinstance(after, bool):
        return float(before != after)
    if isinstance(before, int | float) and isinstance(after, int | float):
        return float(min(1.0, abs(before - after) / max(abs(before), abs(after), 1e-12)))
    return texts(say(before), say(after))


def _surface(first: str, second: str) -> float:
    mine, theirs = set(first.casefold().split()), set(second.casefold().split())
    overlap = len(mine & theirs) / max(len(mine | theirs), 1)
    return 1 - (overlap + similarity(first, second)) / 2
