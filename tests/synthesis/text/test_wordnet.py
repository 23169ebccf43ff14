"""WordNet's files, read as they lie on the disk: a database of eight words, written here."""

from pathlib import Path

import pytest

from synthesis.errors import UserError
from synthesis.text.lexicon import lexicon
from synthesis.text.wordnet import WordNet, find

NOUNS = [
    # words, pointers (relation, line of the target)
    (["vessel"], [("~", 1), ("~", 2), ("~", 3)]),
    (["goblet", "chalice"], [("@", 0)]),
    (["flagon"], [("@", 0)]),
    (["wine_jug"], [("@", 0)]),
]
ADJECTIVES = [(["opaque"], [("!", 1)]), (["transparent", "see-through"], [("!", 0)])]
HEADER = "  1 Written for a test, in the manner of WordNet 3.1  \n"


def write(folder: Path, part: str, letter: str, synsets: list[tuple[list[str], list[tuple[str, int]]]]) -> None:
    """`data.PART` and `index.PART`; every offset has eight digits, so the places are known before the lines are."""

    def line(i: int, places: list[int]) -> str:
        words, pointers = synsets[i]
        said = " ".join(f"{word} 0" for word in words)
        ways = " ".join(f"{r} {places[t]:08d} {letter} {'0101' if r == '!' else '0000'}" for r, t in pointers)
        return f"{places[i]:08d} 06 {letter} {len(words):02x} {said} {len(pointers):03d} {ways} | a gloss  \n"

    places = [0] * len(synsets)
    for i in range(1, len(synsets)):
        places[i] = places[i - 1] + len(line(i - 1, places))
    places = [place + len(HEADER) for place in places]
    (folder / f"data.{part}").write_text(HEADER + "".join(line(i, places) for i in range(len(synsets))))
    index = [f"{word} {letter} 1 1 @ 1 0 {places[i]:08d}  \n" for i, (words, _) in enumerate(synsets) for word in words]
    (folder / f"index.{part}").write_text(HEADER + "".join(sorted(index)))


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    write(tmp_path, "noun", "n", NOUNS)
    write(tmp_path, "adj", "a", ADJECTIVES)
    for part in ("verb", "adv"):
        write(tmp_path, part, part[0], [])
    return WordNet(tmp_path, lexicon())


def test_relations(wordnet: WordNet) -> None:
    assert wordnet.version == "3.1"
    assert wordnet.hypernyms("goblet") == ["vessel"]
    assert wordnet.hyponyms("Vessel") == ["Goblet", "Flagon", "Wine jug"]
    assert wordnet.siblings("chalice") == ["flagon", "wine jug"]
    assert wordnet.opposites("opaque") == ["transparent"]
    assert wordnet.opposites("see-through") == [], "an antonym is of one word, not of its synonyms"
    assert wordnet.hypernyms("nowhere") == wordnet.opposites("nowhere") == []


def test_the_lexicon_comes_first(wordnet: WordNet) -> None:
    word, other = lexicon().antonyms[0]
    assert wordnet.opposites(word)[0] == lexicon().opposites(word)[0]
    assert wordnet.confusions(other) == lexicon().confusions(other)


def test_it_is_found_where_the_environment_says(
    wordnet: WordNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    assert find() == tmp_path
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    with pytest.raises(UserError, match="--wordnet: no database was found"):
        find()
