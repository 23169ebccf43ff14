"""When two values or texts are the same, for which purpose: each way of comparing has a name of its own.

`canonical` is the strictest: as JSON, so 1 is neither 1.0 nor true. `normal_form` and `same_meaning` are for what a
user means: letter case and blanks do not count, and 3 is 3.0. `request_key` is for whole requests. How evaluation
compares replies is another matter, and its own (`eval.replies.calls`).
"""

import json
import math
import posixpath
import re

from synthesis.records import Json
from synthesis.text.arithmetic import arithmetic
from synthesis.text.kinds import CELL, kind_of


def canonical(value: Json) -> str:
    """`value` as JSON with sorted keys: equal exactly for values that are equal as JSON."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def normal_form(value: Json) -> str:
    """Bring `value` to a normal form; two values mean the same exactly if their normal forms are equal.

    Letter case and blanks do not count (as in the paper's matching of critical parameters), nor do `3` and `3.0`, a
    leading `#` of a colour, `$` in a cell reference, or `/a/./b`.
    """
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:.12g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    if isinstance(value, list):
        return "[" + ",".join(normal_form(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{normal_form(value[key])}" for key in sorted(value)) + "}"
    text = re.sub(r"\s+", "", str(value)).casefold()
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return f"{float(text):.12g}" if "." in text else text
    if CELL.fullmatch(str(value)):
        return text.replace("$", "")
    if "/" in text and "://" not in text:
        return posixpath.normpath(text)
    return text.removeprefix("#")


def same_meaning(first: Json, second: Json) -> bool:
    """Tell whether two values mean the same: equal normal forms, or arithmetic that comes to the same number."""
    if normal_form(first) == normal_form(second):
        return True
    if kind_of(first) == kind_of(second) == "expression":
        left, right = arithmetic(first), arithmetic(second)
        return left is not None and right is not None and math.isclose(left, right)
    return False


def request_key(text: str) -> str:
    """A request without case, extra space, and punctuation around words: requests with one key are duplicates."""
    return " ".join(word.strip(".,;:!?\"'()") for word in text.lower().split())
