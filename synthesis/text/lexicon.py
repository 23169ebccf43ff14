"""The lexicon: which words are kinds of what, which are opposites, which are easily confused (`lexicon.yaml`)."""

from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

import yaml
from pydantic import BaseModel, ConfigDict


class Words(Protocol):
    """Where deviating words come from: the lexicon below, or one that knows more (`wordnet`)."""

    def hypernyms(self, word: str) -> list[str]: ...

    def hyponyms(self, word: str) -> list[str]: ...

    def siblings(self, word: str) -> list[str]: ...

    def opposites(self, word: str) -> list[str]: ...

    def confusions(self, word: str) -> list[str]: ...


class Lexicon(BaseModel):
    """Word relations. Look-ups ignore letter case and give words in the case of the question's word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: dict[str, list[str]]
    modifiers: list[str]
    antonyms: list[tuple[str, str]]
    lookalikes: list[tuple[str, str]]
    unrelated: list[str]
    colors: dict[str, str]
    zones: dict[str, list[str]]
    zone_families: dict[str, str]
    synonyms: dict[str, list[str]]
    values: dict[str, list[str]]
    parameter_words: dict[str, str]
    verbs: dict[str, list[str]]

    @cached_property
    def _memberships(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, members in self.classes.items():
            for member in members:
                found.setdefault(member.casefold(), []).append(name)
        return found

    @cached_property
    def _opposites(self) -> dict[str, list[str]]:
        return _partners(self.antonyms)

    @cached_property
    def _confusions(self) -> dict[str, list[str]]:
        return _partners(self.lookalikes)

    def hypernyms(self, word: str) -> list[str]:
        """Return the classes that `word` belongs to."""
        return [like(word, name) for name in self._memberships.get(word.casefold(), [])]

    def hyponyms(self, word: str) -> list[str]:
        """Return the members of the class that `word` names."""
        return [like(word, member) for member in self.classes.get(word.casefold(), [])]

    def siblings(self, word: str) -> list[str]:
        """Return the co-hyponyms of `word`, over all its classes."""
        folded = word.casefold()
        members = [member for name in self._memberships.get(folded, []) for member in self.classes[name]]
        return list(dict.fromkeys(like(word, member) for member in members if member.casefold() != folded))

    def opposites(self, word: str) -> list[str]:
        """Return the antonyms of `word`."""
        return [like(word, other) for other in self._opposites.get(word.casefold(), [])]

    def confusions(self, word: str) -> list[str]:
        """Return words that look or sound like `word`."""
        return [like(word, other) for other in self._confusions.get(word.casefold(), [])]


def _partners(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for first, second in pairs:
        found.setdefault(first.casefold(), []).append(second)
        found.setdefault(second.casefold(), []).append(first)
    return found


def like(model: str, word: str) -> str:
    """Give `word` the letter case of `model`, unless `word` has capitals of its own."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[:1].isupper() else word


@cache
def lexicon() -> Lexicon:
    """Load the lexicon that ships with the package, once a process."""
    text = (Path(__file__).parent / "lexicon.yaml").read_text(encoding="utf-8")
    return Lexicon.model_validate(yaml.safe_load(text))
