"""What a server says, made fit to keep."""

import base64
import json
from urllib.parse import quote

import pytest

from synthesis.servers.scrub import MAX_CHARS, redact, scrub

SECRET = 'open/sesame "42" é'
SECRETS = frozenset({SECRET})


@pytest.mark.parametrize("before", ["", "u", "us", "usr:"])
def test_secrets_are_found_in_every_form(before):
    raw = (before + SECRET).encode()
    forms = [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        quote(SECRET),
        quote(SECRET, safe=""),
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw + b"after").decode(),
    ]
    for form in forms:
        assert "<secret>" in redact(f"see {form} there", SECRETS), form
    left = redact(" ".join(forms), SECRETS)
    assert "sesame" not in left
    for shift in range(3):
        assert base64.b64encode(bytes(shift) + b"sesame")[4:7].decode() not in left


def test_lines_of_a_key_count_too():
    key = "-----BEGIN KEY-----\r\nMIIEvQIBADANBgkqhkiG\r\n-----END KEY-----"
    assert scrub(f"line MIIEvQIBADANBgkqhkiG, whole {key}", frozenset({key})) == "line <secret>, whole <secret>"


def test_secrets_hidden_between_invisible_characters_are_found():
    assert scrub("\u200b".join("s3cret-value"), frozenset({"s3cret-value"})) == "<secret>"


def test_innocent_text_stays_as_it_is():
    text = "Nothing to see: 42 / 7"
    assert scrub(text, SECRETS) is not None
    assert scrub(text, SECRETS) == scrub(text, frozenset()) == text


@pytest.mark.parametrize("at", [MAX_CHARS - 3, 2 * MAX_CHARS - 3, 3 * MAX_CHARS])
def test_long_text_is_cut_and_no_half_secret_stays_at_the_cut(at):
    text = "x" * at + "s3cret-value" + "y" * 3 * MAX_CHARS
    kept = scrub(text, frozenset({"s3cret-value"}))
    assert "s3c" not in kept
    assert len(kept) < MAX_CHARS + 100
    assert kept.endswith(f"[cut: the first {MAX_CHARS} of {len(text)} characters]")
    assert scrub("x" * MAX_CHARS, frozenset()) == "x" * MAX_CHARS
    crowded = scrub("s3cret-value" * MAX_CHARS, frozenset({"s3cret-value"}))
    assert "s3c" not in crowded
