"""The words that a condition may hang on: what a user may ask about in a tool's result."""

import re
from functools import cache

_STOP_WORDS = """
added all and are but data error false for from has have into more name none not null one result same success text that
the their there this true two type value was were when which will with you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that no condition hangs on."""


def mentions(text: str, word: str) -> bool:
    """Whether `word` stands in `text` as a whole word, in any case: the test of a condition."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


@cache
def words_of(text: str) -> frozenset[str]:
    """All words, in lower case."""
    return frozenset(re.findall(r"\w+", text.lower()))


@cache
def content_words(text: str) -> frozenset[str]:
    """Words of three letters and more that mean something: no keys or labels, no parts of paths or addresses."""
    text = re.sub(r"<(?:volatile|secret)>", " ", text)  # our own signs, for what a user sees otherwise
    found = re.findall(r"(?<![\w/\\.@-])([A-Za-z]{3,})(?![\w/\\@-])(?!\.\w)(?!['\"]?\s*:)", text)
    return frozenset(word for word in found if word.lower() not in STOP_WORDS)
