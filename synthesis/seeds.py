"""Randomness that depends on what is decided, not on when: the key to a byte-identical second run."""

import hashlib
import json
import random
from typing import Any


def digest(*parts: Any, length: int = 16) -> str:
    """Content-derived identifier: the first `length` hex digits of SHA-256 over the parts as canonical JSON.

    Half a surrogate pair, as in a file's name that is no UTF-8, counts like any other character.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def seeded(seed: int, *key: Any) -> random.Random:
    """A generator for one decision, named by `key`: independent of the order in which decisions are made."""
    return random.Random(int(digest(seed, *key, length=32), 16))
