"""All that token ids follow from, apart from the rows: the tokenizer, and the code that renders, masks and proves."""

from functools import cache
from pathlib import Path
from typing import Any

import eval.replies
from rise_train.rows.file_hash import hash_files
from synthesis.seeds import digest


def hash_encoding(tokenizer: Any) -> str:
    """Equal where the same rows give the same ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    names = ("chat_template", "response_template", "special_tokens_map", "eos_token_id", "pad_token_id")
    return digest(type(tokenizer).__name__, words, [str(getattr(tokenizer, name, None)) for name in names], _code())


@cache
def _code() -> str:
    """The code that makes ids, ours and the libraries'."""
    from importlib.metadata import version

    folders = [Path(__file__).parent, Path(eval.replies.__file__ or "").parent]
    ours = [hash_files(f, (p for p in f.rglob("*") if p.suffix in (".py", ".jinja"))) for f in folders]
    return digest(ours, [version(name) for name in ("jinja2", "tokenizers", "transformers", "trl")])
