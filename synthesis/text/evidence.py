"""Whether a text says a value: the rule that finds critical parameters and refuses deviating values."""

import re
from functools import lru_cache

from synthesis.records import Json
from synthesis.text.kinds import kind_of, leaves
from synthesis.text.saying import forms, say

_UNIT = r"(?=x\d)|-?(?!(?:st|nd|rd|th)\b)[A-Za-z]{1,12}(?!\w)|(?!\w|[.:/,\-+*]\w)"


def measures(number: str, text: str) -> bool:
    """Tell whether `number` stands in `text` with a unit grown on to it: "150lbs", "4-star", "800x600"; not "3rd"."""
    if number not in text:
        return False
    return re.search(rf"(?:(?<![\w.,:/+*-])|(?<=\dx)){re.escape(number)}(?:{_UNIT})", text) is not None


def stands_in(form: str, text: str) -> bool:
    """Tell whether `form` stands in `text` as words of its own: "A1" is not in "A1:C5", nor "5" in "5.5" or "15"."""
    first = form.split()[:1]
    return bool(first) and first[0].casefold() in text.casefold() and _pattern(form).search(text) is not None


@lru_cache(maxsize=8192)
def _pattern(form: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(part) for part in form.split())
    before = r"(?<![\w/])(?<!\w[.:/,\-+*])" if re.match(r"\w", form) else r"(?<!\w)"
    after = r"(?!\w|[.:/,\-+*]\w)" if re.search(r"\w$", form) else ""
    return re.compile(before + words + after, re.IGNORECASE)


def supported(value: Json, text: str) -> bool:
    """Tell whether `text` says `value`: one of its forms stands there; for lists and objects, one of every scalar.

    So it is for a text that lists things with commas. A boolean or null says nothing that could stand in a text, so
    they are never supported on their own.
    """
    if isinstance(value, list | dict) and stands_in(say(value), text):
        return True
    scalars = [leaf for leaf in leaves(value) if not isinstance(leaf, bool) and leaf is not None]
    return bool(scalars) and all(_says(leaf, text) for leaf in scalars)


def _says(scalar: Json, text: str) -> bool:
    if any(stands_in(form, text) for form in forms(scalar)):
        return True
    if isinstance(scalar, int | float):
        return any(measures(form, text) for form in forms(scalar) if form[-1].isdigit())
    parts = [part.strip() for part in str(scalar).split(",")] if kind_of(scalar) == "text" else []
    return len(parts) > 1 and all(part and stands_in(part, text) for part in parts)
