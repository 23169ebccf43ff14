"""Deviating words that are near by embedding: with the real encoder, and through the offline author."""

import random

import pytest

from synthesis.authors.offline.deviations import deviations
from synthesis.text.embedding import available, encode
from synthesis.text.lexicon import lexicon
from synthesis.text.neighbours import FARTHEST, NEAREST, Neighbours

pytestmark = pytest.mark.skipif(not available(), reason="the extra `embeddings` is not installed")
known = Neighbours(lexicon())


def test_neighbours_are_near_and_another_word() -> None:
    for word in ("salmon", "seminar", "printer"):
        near = known.siblings(word)[len(lexicon().siblings(word)) :]
        assert near
        cosines = encode(near) @ encode([word])[0]
        assert all(FARTHEST <= cosine <= NEAREST for cosine in cosines)
        assert list(cosines) == sorted(cosines, reverse=True)
    assert "tuna" in known.siblings("salmon")


def test_forms_and_synonyms_are_left_out() -> None:
    assert not {"meetings", "meets", "gathering", "gatherings", "gathered"} & set(known.siblings("meeting"))
    assert not {"printers", "printing", "prints"} & set(known.siblings("printer"))


def test_letter_case_and_unknown_words() -> None:
    assert all(word[0].isupper() for word in known.siblings("Salmon"))
    assert known.siblings("qqzzt") == lexicon().siblings("qqzzt") == []


def test_the_other_relations_stay_the_lexicon_s() -> None:
    word, other = lexicon().antonyms[0]
    assert known.opposites(word) == lexicon().opposites(word)
    assert known.confusions(other) == lexicon().confusions(other)


def test_a_text_gets_deviations_from_neighbours_only_when_asked() -> None:
    schema = {"type": "string"}
    found = [
        {value for kind, value in deviations("salmon recipes", schema, "query", (), schema, random.Random(0), words)
         if kind == "co_hyponym"}
        for words in (lexicon(), known)
    ]  # fmt: skip
    assert not found[0]
    assert found[1]
    assert all(value.endswith(" recipes") for value in found[1])  # type: ignore[attr-defined]
