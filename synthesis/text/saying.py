"""How a user says a value: in plain words, and in the other ways that mean it too."""

import posixpath
import re
from datetime import date

from synthesis.records import Json
from synthesis.text.kinds import kind_of

MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip


def say(value: Json) -> str:
    """Render `value` as a user would write it: lists as "a, b and c", rows split by ";", no brackets, no quotes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list):
        if any(isinstance(item, list | dict) for item in value):
            return "; ".join(say(item) for item in value)
        words = [say(item) for item in value]
        return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
    if isinstance(value, dict):
        return ", ".join(f"{spaced(key)} {say(item)}" for key, item in value.items())
    return "nothing" if value is None else str(value)


def spaced(name: str) -> str:
    """Split an identifier into lower-case words: `start_cell`, `startCell` and `start-cell` give "start cell"."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\s_\-.]+", parts)).strip().lower()


def forms(value: Json) -> list[str]:
    """List the ways in which a user may say a scalar `value`: itself, and the normal forms of its kind.

    A number also in words, with a thousands comma or with its zeros ("23.0"), a date also as "January 19" or
    "1/19/2026", a time also as "2 pm", a path also by its last part, a time zone also by its city, `bar_chart` also as
    "bar chart", a word also in the plural or singular.
    """
    text = say(value)
    kind = kind_of(value)
    found = [text]
    if kind == "number":
        found += [f"{value:,}"] if abs(value) >= 1000 else []
        found += [NUMBER_WORDS[int(value)]] if value in range(len(NUMBER_WORDS)) else []
        found += [repr(value)] if isinstance(value, float) else []
    elif kind == "date":
        found += _date_forms(text)
    elif kind == "time":
        found += _time_forms(text)
    elif kind == "path":
        found.append(posixpath.basename(text.rstrip("/")))
    elif kind == "zone":
        found.append(text.split("/")[-1].replace("_", " "))
    elif kind == "cell":
        found += [text.replace("$", ""), text.replace(":", " to "), text.replace(":", "-")]
    elif kind == "color" or text.startswith("#"):
        found.append(text.removeprefix("#"))
    elif kind in ("identifier", "name", "text") and not re.search(r"\s", text):
        found.append(spaced(text))
        found += _other_number(spaced(text))
    return list(dict.fromkeys(form for form in found if form.strip()))


def _date_forms(text: str) -> list[str]:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return []
    suffix = "th" if 11 <= day.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
    names = [MONTHS[day.month - 1], MONTHS[day.month - 1][:3]]
    pairs = [f"{name} {number}" for name in names for number in (day.day, f"{day.day}{suffix}")]
    pairs += [f"{number} {name}" for name in names for number in (day.day, f"{day.day}{suffix}")]
    figures = [f"{day.day:02d}.{day.month:02d}.{day.year}", f"{day.day}.{day.month}.{day.year}"]
    figures += [f"{day.month:02d}/{day.day:02d}/{day.year}", f"{day.month}/{day.day}/{day.year}"]
    figures += [f"{day.day:02d}/{day.month:02d}/{day.year}", f"{day.day}/{day.month}/{day.year}"]
    return [*pairs, *figures, f"{day.year}/{day.month:02d}/{day.day:02d}"]


def _other_number(word: str) -> list[str]:
    """The plural of a word of letters, and its singular where it ends like a plural."""
    if not re.fullmatch(r"[a-z ]*[a-z]{3}", word):
        return []
    singular = [word[:-1]] if len(word) > 3 and word[-1] == "s" and word[-2] not in "su" else []
    return singular or [word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")]


def _time_forms(text: str) -> list[str]:
    hour, minute = (int(part) for part in text.split(":"))
    half = "am" if hour < 12 else "pm"
    short = f"{hour % 12 or 12}" + (f":{minute:02d}" if minute else "")
    return [
        f"{hour:02d}:{minute:02d}",
        f"{hour}:{minute:02d}",
        f"{hour:02d}.{minute:02d}",
        f"{short} {half}",
        f"{short}{half}",
    ]
