"""What a server says, made fit to keep: nothing hidden in it, no secret, and not too long."""

import base64
import json
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

from synthesis.text.visible import visible

MAX_CHARS = 50_000
"""Longest text kept of a result, a description or any other string of a server; the rest is dropped and counted."""
MIN_SECRET = 6
"""A shorter value is not taken for a secret: it would be found in innocent words."""
SECRET = "<secret>"


def redact(text: str, secrets: frozenset[str]) -> str:
    """`text` with every secret replaced by `<secret>`: as it is, escaped for JSON or URLs, in base64 and in hex."""
    return _pattern(secrets).sub(SECRET, text) if secrets else text


def holds_secret(value: Any) -> bool:
    """Whether some text in `value` holds the sign that stands for a secret: no tool is called with it."""
    return SECRET in json.dumps(value, ensure_ascii=False)


def scrub(text: str, secrets: frozenset[str]) -> str:
    """`text` visible, without secrets, and cut to `MAX_CHARS` with a note of how long it was."""
    kept = redact(visible(text[: 2 * MAX_CHARS]), secrets)
    if len(text) > 2 * MAX_CHARS and secrets:  # the cut may have left the beginning of a secret
        kept = kept[: -max(map(len, _forms(secrets)))]
    if len(kept) <= MAX_CHARS and len(text) <= 2 * MAX_CHARS:
        return kept
    return f"{kept[:MAX_CHARS]}\n[cut: the first {MAX_CHARS} of {len(text)} characters]"


@lru_cache
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(form) for form in sorted(_forms(secrets), key=len, reverse=True)))


@lru_cache
def _forms(secrets: frozenset[str]) -> frozenset[str]:
    """All that a secret may look like. Of one with several lines, such as a key, the long lines count too."""
    forms: set[str] = set()
    for secret in secrets:
        lines = [line for line in secret.splitlines() if len(line) >= 2 * MIN_SECRET]
        for text in {secret, visible(secret), *lines}:
            forms |= {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
            forms |= {quote(text), quote(text, safe=""), quote_plus(text), text.encode().hex()}
            forms |= _base64_forms(text.encode())
    return frozenset(form for form in forms if len(form) >= MIN_SECRET)


def _base64_forms(secret: bytes) -> set[str]:
    """The digits that hold nothing but the secret, for each of the three places where it may start in what is encoded.

    A header of basic authentication, for one, encodes a name before the password.
    """
    forms: set[str] = set()
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            digits = encode(bytes(offset) + secret).decode()
            forms.add(digits[(offset * 8 + 5) // 6 : (offset + len(secret)) * 8 // 6])
    return forms
