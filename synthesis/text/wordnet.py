"""WordNet as a source of deviating words, where its database is installed: `data.noun`, `index.noun` and their like.

Read as it lies on the disk, in the format of Princeton's WordNet 3, which Linux distributions and NLTK ship. No
library reads what Debian's wordnet-base installs: NLTK's reader (3.10) wants a file `lexnames` that is not in it,
refuses folders that are not NLTK's own, and takes four CPU seconds to import; `wn` (1.1) reads another format. Only
the first sense of a word counts, the commonest: rarer ones give words that nobody would confuse.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from synthesis.errors import UserError
from synthesis.text.lexicon import Lexicon, like

PARTS = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
"""Files by the letter that stands for a part of speech."""
SHORTEST = 4
EACH = 8
"""Words taken of one relation."""


def find() -> Path:
    """The folder of the installed database. Raises `UserError` where there is none."""
    nltk = [*os.environ.get("NLTK_DATA", "").split(os.pathsep), "~/nltk_data", "/usr/share/nltk_data"]
    places = [os.environ.get("WNSEARCHDIR", ""), "/usr/share/wordnet", *(f"{p}/corpora/wordnet" for p in nltk if p)]
    for folder in (Path(place).expanduser() for place in places if place):
        if (folder / "data.noun").is_file():
            return folder
    raise UserError(
        "--wordnet: no database was found; install the package wordnet-base or NLTK's corpus wordnet, or set "
        "WNSEARCHDIR to the folder that holds data.noun."
    )


@dataclass(frozen=True)
class Pointer:
    """From one set of synonyms, or one word in it, to another; words count from 1, and 0 stands for all."""

    relation: str
    place: tuple[str, int]
    source: int
    target: int


@dataclass(frozen=True)
class Synset:
    """A set of synonyms and where it points."""

    words: list[str]
    pointers: list[Pointer]


class WordNet:
    """Word relations, the project's own first and then the database's; answers as `Lexicon` does."""

    def __init__(self, folder: Path, own: Lexicon) -> None:
        """The database lies in `folder`; it is read when the first word is looked up."""
        self._folder, self._own = folder, own

    @cached_property
    def version(self) -> str:
        """The version that the database's header names."""
        found = re.search(rb"WordNet (\d+(?:\.\d+)*)", self._data["noun"][:4000])
        return found[1].decode() if found else "unknown"

    def hypernyms(self, word: str) -> list[str]:
        """Return what `word` is a kind of."""
        return _merged(word, self._own.hypernyms(word), self._related(word, "@"))

    def hyponyms(self, word: str) -> list[str]:
        """Return kinds of `word`."""
        return _merged(word, self._own.hyponyms(word), self._related(word, "~"))

    def siblings(self, word: str) -> list[str]:
        """Return other kinds of what `word` is a kind of."""
        above = [self._synset(pointer.place) for pointer in self._pointers(word, "@")]
        below = (self._synset(p.place) for synset in above for p in synset.pointers if p.relation == "~")
        others = (synset.words[0] for synset in below if word.casefold() not in synset.words)
        return _merged(word, self._own.siblings(word), others)

    def opposites(self, word: str) -> list[str]:
        """Return the antonyms of `word`."""
        return _merged(word, self._own.opposites(word), self._related(word, "!"))

    def confusions(self, word: str) -> list[str]:
        """Return words that look or sound like `word`, which the database does not know."""
        return self._own.confusions(word)

    @cached_property
    def _data(self) -> dict[str, bytes]:
        return {part: (self._folder / f"data.{part}").read_bytes() for part in set(PARTS.values())}

    @cached_property
    def _index(self) -> dict[str, tuple[str, int]]:
        """The first sense of every word: as a noun if it is one, for the words of arguments mostly are."""
        found: dict[str, tuple[str, int]] = {}
        for part in ("noun", "verb", "adj", "adv"):
            for line in (self._folder / f"index.{part}").read_text(encoding="ascii").splitlines():
                if not line.startswith(" "):
                    fields = line.split()
                    found.setdefault(fields[0], (part, int(fields[-int(fields[2])])))
        return found

    def _synset(self, place: tuple[str, int]) -> Synset:
        """The line at a place: offset, file, kind, words and their number, pointers and their number, the gloss."""
        part, offset = place
        data = self._data[part]
        fields = data[offset : data.index(b"\n", offset)].split(b" | ")[0].decode("ascii").split()
        count = int(fields[3], 16)
        words = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        rest = iter(fields[5 + 2 * count : 5 + 2 * count + 4 * int(fields[4 + 2 * count])])
        pointers = [
            Pointer(relation, (PARTS[letter], int(target)), int(words_at[:2], 16), int(words_at[2:], 16))
            for relation, target, letter, words_at in zip(rest, rest, rest, rest, strict=True)
        ]
        return Synset(words, pointers)

    def _pointers(self, word: str, relation: str) -> Iterator[Pointer]:
        """The first sense's pointers. Short words are passed over: "in" is an inch to the database."""
        folded = word.casefold()
        place = self._index.get(folded.replace(" ", "_"))
        if place is not None and len(word) >= SHORTEST:
            synset = self._synset(place)
            own = [other.casefold() for other in synset.words].index(folded) + 1
            yield from (p for p in synset.pointers if p.relation == relation and p.source in (0, own))

    def _related(self, word: str, relation: str) -> Iterator[str]:
        for pointer in self._pointers(word, relation):
            yield self._synset(pointer.place).words[max(0, pointer.target - 1)]


def _merged(word: str, own: list[str], more: Iterable[str]) -> list[str]:
    """Own words, then some more, in the letter case of `word`, each once."""
    known = {entry.casefold() for entry in (word, *own)}
    found = (like(word, other) for other in dict.fromkeys(more) if other.casefold() not in known)
    return [*own, *islice(found, EACH)]
