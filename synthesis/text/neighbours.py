"""Nearest neighbours by embedding as a source of deviating words: what is near a word in meaning, and is not it.

The words are those that the encoder's tokenizer knows as a whole, about twenty thousand. The encoder's own table of
word vectors proposes, the encoder decides (`synthesis.text.embedding`). Nothing says what sort of neighbour a word is;
most are of its kind ("Berlin" for "London"), so they count as siblings, and an antonym may be among them.
"""

from functools import cached_property

import numpy as np

from synthesis.text.embedding import Floats, encode, word_table
from synthesis.text.lexicon import Words, like

PROPOSED = 24
"""Words that the table proposes for one."""
NEAREST, FARTHEST = 0.65, 0.35
"""Cosines between which a neighbour counts: nearer ones often mean the same ("gathering" is at 0.69 of "meeting")."""
SHORTEST = 4
EACH = 4


class Neighbours:
    """Word relations of another source, with neighbours among the siblings; answers as `Lexicon` does."""

    def __init__(self, own: Words) -> None:
        """What `own` knows comes first."""
        self._own = own

    def hypernyms(self, word: str) -> list[str]:
        """Return what `word` is a kind of."""
        return self._own.hypernyms(word)

    def hyponyms(self, word: str) -> list[str]:
        """Return kinds of `word`."""
        return self._own.hyponyms(word)

    def siblings(self, word: str) -> list[str]:
        """Return other kinds of what `word` is a kind of, and up to `EACH` neighbours, the nearest first."""
        own = self._own.siblings(word)
        avoided = {other.casefold() for other in (*own, *self._own.hypernyms(word), *self._own.hyponyms(word))}
        near = [like(word, other) for other in self._near(word.casefold()) if other not in avoided]
        return own + near[:EACH]

    def opposites(self, word: str) -> list[str]:
        """Return the antonyms of `word`."""
        return self._own.opposites(word)

    def confusions(self, word: str) -> list[str]:
        """Return words that look or sound like `word`."""
        return self._own.confusions(word)

    @cached_property
    def _table(self) -> tuple[dict[str, int], list[str], Floats]:
        """Row of every word, the words, and their vectors: centred, for all have much in common, and of length 1."""
        known = {w: v for w, v in word_table().items() if len(w) >= SHORTEST and w.isascii() and w.isalpha()}
        vectors = np.stack(list(known.values()))
        vectors -= vectors.mean(axis=0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return {word: row for row, word in enumerate(known)}, list(known), vectors

    def _near(self, word: str) -> list[str]:
        """Neighbours of a word in small letters, the nearest first; none for a word that the table lacks."""
        rows, words, vectors = self._table
        if word not in rows:
            return []
        proposed = np.argsort(-(vectors @ vectors[rows[word]]), kind="stable")[1 : PROPOSED + 1]
        others = [words[row] for row in proposed]
        cosines = encode(others) @ encode([word])[0]
        avoided, near = [word], []
        for i in np.argsort(-cosines, kind="stable"):
            if cosines[i] >= FARTHEST and not any(_inflected(others[i], other) for other in avoided):
                near += [others[i]] * bool(cosines[i] <= NEAREST)
                avoided.append(others[i])
        return near


def _inflected(word: str, other: str) -> bool:
    """Whether two words are forms of one: they begin alike but for the ending."""
    stem = max(SHORTEST, min(len(word), len(other)) - 2)
    return word[:stem] == other[:stem]
