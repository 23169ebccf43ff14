"""What a value looks like: a date, a path, a cell, a name. By its type and its shape alone, for any server's values."""

import re
from collections.abc import Iterator
from typing import Literal

from synthesis.records import Json

Kind = Literal[
    "boolean", "number", "date", "time", "zone", "color", "path", "cell", "expression", "statement", "address",
    "identifier", "name", "text", "list", "object", "null",
]  # fmt: skip

_REGIONS = "Africa|America|Antarctica|Asia|Atlantic|Australia|Europe|Indian|Pacific|Etc"
CELL = re.compile(r"\$?([A-Z]{1,2})\$?([1-9]\d{0,4})(?::\$?([A-Z]{1,2})\$?([1-9]\d{0,4}))?")
DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
FUNCTIONS = "sqrt|sin|cos|tan|log|log10|exp|abs|pi|pow|e"
COLOR = re.compile(r"#?[0-9A-Fa-f]{6}")
SHAPES: list[tuple[Kind, re.Pattern[str]]] = [
    ("date", DATE),
    ("time", TIME),
    ("zone", re.compile(rf"(?:{_REGIONS})/[\w/+-]+|UTC|GMT")),
    ("address", re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+|[a-z]+://\S+")),
    ("path", re.compile(r"(?:/[\w.\- ]+)+/?|(?:[\w\-]+/)+[\w.\-]*|[\w\-]+\.[A-Za-z][A-Za-z0-9]{1,4}")),
    ("cell", CELL),
    ("statement", re.compile(r"(?is)(?:select|insert|update|delete|create|with)\s.+")),
    ("expression", re.compile(rf"=.+|(?=.*\d)(?=.*[+*/^%(-])(?:[\d.\s+*/^%(),-]|\b(?:{FUNCTIONS})\b)+")),
    ("identifier", re.compile(r"(?=\S*[\d_])[\w.\-#~^]+|[a-z]+-[a-z-]+")),
    ("name", re.compile(r"[A-Z][\w'-]*(?: [A-Z][\w'-]*){0,2}")),
]  # fmt: skip


def kind_of(value: Json, hint: str = "") -> Kind:
    """Tell the kind of `value` from its type and its shape.

    `hint` is what is known of the parameter (name, description); six hex digits are a colour if it speaks of one.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "list"
    if isinstance(value, dict):
        return "object"
    if COLOR.fullmatch(value) and (value[0] == "#" or re.search("colou?r|fill|hex", hint.casefold())):
        return "color"
    return next((kind for kind, shape in SHAPES if shape.fullmatch(value)), "text")


def leaves(value: Json) -> Iterator[Json]:
    """Yield the scalars of a value, in order."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value
