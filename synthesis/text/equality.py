"""When two values or texts are the same, for which purpose: each way of comparing has a name of its own.

`canonical` is the strictest: as JSON, so 1 is neither 1.0 nor true. `normal_form` and `same_meaning` are for what a
user means: letter case and blanks do not count, 3 is 3.0, a date is itself in any form, and so is a unit or a country
by any name. `request_key` is for whole requests. How evaluation
compares replies is another matter, and its own (`eval.replies.calls`).
"""

import json
import math
import posixpath
import re
import unicodedata

from synthesis.records import Json
from synthesis.text.arithmetic import arithmetic
from synthesis.text.kinds import CELL, kind_of
from synthesis.text.names import same_name

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WRITTEN = re.compile(
    r"(?:[A-Za-z]+, )?(?:(?P<day>\d{1,2})(?:st|nd|rd|th)?\.? )?(?P<month>[A-Za-z]{3,9})\.?"
    r"(?: (?P<late>\d{1,2})(?:st|nd|rd|th)?)?,? (?P<year>\d{4})"
)
"""19 January 2026, January 19th, 2026, Mon, 19 Jan 2026."""
_FIGURES = re.compile(r"(?P<day>\d{1,2})(?P<dot>[./])(?P<month>\d{1,2})(?P=dot)(?P<year>\d{4})")
"""19.01.2026, 1/19/2026."""
_CLOCK = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d[T ])?(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.0+)?)?)?"
    r"(?P<zone>[zZ]|[+-]\d\d:\d\d)? ?(?P<half>[aApP]\.?[mM]\.?)?"
)
"""9:30, 09:30:00, 2 pm, 2026-01-19 09:30Z."""


def canonical(value: Json) -> str:
    """`value` as JSON with sorted keys: equal exactly for values that are equal as JSON."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def normal_form(value: Json) -> str:
    """Bring `value` to a normal form; values of one normal form mean the same.

    Letter case and blanks do not count (as in the paper's matching of critical parameters), nor how Unicode puts
    letters together, nor do `3` and `3.0`, a leading `#` of a colour, `$` in a cell reference, `;` after a statement,
    or where a path starts (`/data/a.txt`, `./a.txt`, `a.txt`). Dates and times have one form.
    """
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:.12g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    if isinstance(value, list):
        return "[" + ",".join(normal_form(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{normal_form(value[key])}" for key in sorted(value)) + "}"
    words = unicodedata.normalize("NFC", str(value)).strip()
    text = re.sub(r"\s+", "", words).casefold()
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return f"{float(text):.12g}" if "." in text else text
    if CELL.fullmatch(words):
        return text.replace("$", "")
    if moment := _moment(words):
        return moment
    if "/" in text and "://" not in text:
        return posixpath.normpath(text.removeprefix("/data/") if text != "/data/" else "/data")
    return text.removeprefix("#").removesuffix(";")


def _moment(words: str) -> str:
    """A date, a time or both in ISO form; empty for anything else, and where day and month could be either."""
    if (match := _WRITTEN.fullmatch(words)) and (number := match["day"] or match["late"]):
        name = match["month"].capitalize()[:3]
        return f"{match['year']}-{_MONTHS.index(name) + 1:02d}-{int(number):02d}" if name in _MONTHS else ""
    if match := _FIGURES.fullmatch(words):
        day, month = int(match["day"]), int(match["month"])
        if match["dot"] == "/" and day <= 12 and month <= 12 and day != month:
            return ""
        day, month = (month, day) if month > 12 else (day, month)
        return f"{match['year']}-{month:02d}-{day:02d}"
    if (match := _CLOCK.fullmatch(words)) and (match["minute"] or match["half"]):
        hour = int(match["hour"]) % 12 + 12 * (match["half"][0] in "pP") if match["half"] else int(match["hour"])
        seconds = "" if match["second"] in (None, "00") else f":{match['second']}"
        zone = (match["zone"] or "").upper().replace("Z", "+00:00")
        date = f"{match['date'][:10]}T" if match["date"] else ""
        return f"{date}{hour:02d}:{match['minute'] or '00'}{seconds}{zone}"
    return ""


def same_meaning(first: Json, second: Json) -> bool:
    """Tell whether two values mean the same.

    So do values of one normal form, arithmetic that comes to the same number (`10**12`, `1e12`), names of one unit
    (`km`, `kilometers`) or of one country (`USA`, `United States`), a name with and without a note in brackets (`pint`,
    `pint (US)`), and time zones that are one (`CET`, `Europe/Rome`). Of lists and objects, if all their parts do.
    """
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_meaning, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same_meaning(first[key], second[key]) for key in first)
    if normal_form(first) == normal_form(second):
        return True
    if not isinstance(first, str) or not isinstance(second, str):
        return False
    if _is_arithmetic(first) and _is_arithmetic(second):
        left, right = arithmetic(first), arithmetic(second)
        return left is not None and right is not None and math.isclose(left, right)
    return same_name(first, second)


def _is_arithmetic(text: str) -> bool:
    return kind_of(text) == "expression" or re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text) is not None


def request_key(text: str) -> str:
    """A request without case, extra space, and punctuation around words: requests with one key are duplicates."""
    return " ".join(word.strip(".,;:!?\"'()") for word in text.lower().split())
