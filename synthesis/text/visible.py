"""Text that others wrote, without what a reader does not see: for records, prompts and terminals alike."""

import contextlib
import json
import re
import unicodedata

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_KEPT_CONTROLS = {ord("\n"): None, ord("\t"): None}
_HIDDEN_SELECTORS = range(0xE0100, 0xE01F0)


def visible(text: str) -> str:
    """`text` without what a reader does not see: terminal escapes, bidi marks, zero-width and control characters.

    Line breaks (as `\\n`) and tabs stay. The Unicode categories that go are all of C, unassigned code points included.
    """
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    if text.translate(_KEPT_CONTROLS).isprintable():
        return text
    return "".join(char for char in text if char in "\n\t" or not _hidden(char))


def whole(text: str) -> str:
    """`text` with the sign for what is unreadable in place of half a surrogate pair; models do write that."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _hidden(char: str) -> bool:
    return unicodedata.category(char)[0] == "C" or ord(char) in _HIDDEN_SELECTORS


def shown(text: str, limit: int) -> str:
    """A result as the model sees it: at most `limit` characters, and JSON over many lines put on one, as more fits."""
    if text.lstrip().startswith(("{", "[")) and "\n" in text:
        with contextlib.suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text), ensure_ascii=False)
    return shortened(text, limit)


def shortened(text: str, limit: int) -> str:
    """`text` visible, and at most `limit` characters of it; dots stand for what was cut."""
    kept = visible(text)
    return kept if len(kept) <= limit else kept[: max(0, limit - 3)] + "..."
