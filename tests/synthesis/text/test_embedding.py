"""The encoder: it is the one that others know by this name, it knows meaning, and it needs nothing but its package."""

import sys

import numpy as np
import pytest

from synthesis.errors import UserError
from synthesis.text import embedding
from synthesis.text.embedding import available, encode

needs_encoder = pytest.mark.skipif(not available(), reason="needs the extra: pip install 'rise-train[embeddings]'")
TEXTS = ["Google Maps", "Maps by Google", "weather forecast", "the stock price of a company", "a", "", "Zürich " * 200]


@needs_encoder
def test_vectors_are_of_unit_length_and_do_not_depend_on_their_company() -> None:
    vectors = encode([*TEXTS, *TEXTS])
    assert vectors.shape == (14, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    embedding._known.clear()
    alone = np.concatenate([encode([text]) for text in reversed(TEXTS)])[::-1]
    assert np.allclose(vectors[:7], alone, atol=1e-6)
    assert np.array_equal(vectors[:7], vectors[7:])
    assert encode([]).shape == (0, 384)


@needs_encoder
def test_it_knows_meaning() -> None:
    maps, maps_too, weather, *_ = encode(TEXTS)
    assert maps @ maps_too > 0.8 > 0.5 > maps @ weather


@needs_encoder
def test_it_agrees_with_transformers() -> None:
    import torch
    from transformers import AutoTokenizer, BertModel

    folder = embedding._folder()
    reference, tokenizer = BertModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(TEXTS, encode(TEXTS), strict=True):
        ids = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = reference(**ids).last_hidden_state[0].mean(dim=0)
        assert np.abs(vector - torch.nn.functional.normalize(mean, dim=0).numpy()).max() < 1e-6


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PACKAGE", "no_such_package")
    embedding._model.cache_clear()
    assert not available()
    with pytest.raises(UserError, match=r"pip install 'rise-train\[embeddings\]'"):
        encode(["never seen before"])
    assert "no_such_package" not in sys.modules
