"""What a value looks like, how a user would say it, and when two values mean the same.

Critical parameters are found, and deviating values are refused, by these rules alone: no server's name appears here.
"""

import json
import math
import posixpath
import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from typing import Literal

from synthesis.records import Json

Kind = Literal[
    "boolean", "number", "date", "time", "zone", "color", "path", "cell", "expression", "statement", "address",
    "identifier", "name", "text", "list", "object", "null",
]  # fmt: skip

MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
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


def normal(value: Json) -> str:
    """Bring `value` to a normal form; two values mean the same exactly if their normal forms are equal.

    Letter case and blanks do not count (as in the paper's matching of critical parameters), nor do `3` and `3.0`, a
    leading `#` of a colour, `$` in a cell reference, or `/a/./b`.
    """
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:.12g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    if isinstance(value, list):
        return "[" + ",".join(normal(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{normal(value[key])}" for key in sorted(value)) + "}"
    text = re.sub(r"\s+", "", str(value)).casefold()
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return f"{float(text):.12g}" if "." in text else text
    if CELL.fullmatch(str(value)):
        return text.replace("$", "")
    if "/" in text and "://" not in text:
        return posixpath.normpath(text)
    return text.removeprefix("#")


def same(first: Json, second: Json) -> bool:
    """Tell whether two values mean the same: equal normal forms, or arithmetic that comes to the same number."""
    if normal(first) == normal(second):
        return True
    if kind_of(first) == kind_of(second) == "expression":
        left, right = arithmetic(first), arithmetic(second)
        return left is not None and right is not None and math.isclose(left, right)
    return False


def arithmetic(expression: str) -> float | None:
    """Work out plain arithmetic (`+ - * / **`, brackets, `sqrt`); None for anything else, or for huge powers."""
    import ast

    def value(node: ast.AST) -> float:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return float(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Call(func=ast.Name(id="sqrt"), args=[argument], keywords=[]):
                return math.sqrt(value(argument))
            case ast.BinOp(left=left, op=operator, right=right):
                return _combine(operator, value(left), value(right))
        raise ValueError("not plain arithmetic")

    try:
        return value(ast.parse(expression.removeprefix("=").replace("^", "**").strip(), mode="eval"))
    except (ValueError, SyntaxError, ZeroDivisionError, OverflowError):
        return None


def _combine(operator: object, left: float, right: float) -> float:
    match type(operator).__name__:
        case "Add":
            return left + right
        case "Sub":
            return left - right
        case "Mult":
            return left * right
        case "Div":
            return left / right
        case "Mod":
            return left % right
        case "Pow" if abs(right) <= 64:
            return float(math.pow(left, right))
    raise ValueError("not plain arithmetic")


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


def leaves(value: Json) -> Iterator[Json]:
    """Yield the scalars of a value, in order."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


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
