"""JSON text that the `datasets` library reads back exactly.

`datasets` (5.2) parses `Json()` columns with the JSON reader of pandas, which is quick but misses the last digit of
some numbers: 0.3 comes back as 0.30000000000000004, and would enter prompts so. Its writer keeps ten digits only. Text
that we write ourselves is stored as it is, and a number with zeros behind it ("0.30") is read right; so every float is
written in the shortest form that survives. This module can go when `datasets` parses floats exactly.
"""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal

from synthesis.records import Json

Parse = Callable[[str], Json]
ZEROS = 15
"""Zeros tried behind a number."""
SHIFTS = 8
"""Places by which the decimal point is then tried elsewhere, with an exponent that puts it back: 1.128 as 112.8e-2."""


def dumps(value: Json, parse: Parse) -> str:
    """`value` as JSON that `parse` turns back into it; keys keep their order.

    A float that no form preserves (more digits than people write) is left to its usual form.
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(str(key))}:{dumps(item, parse)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(dumps(item, parse) for item in value) + "]"
    if isinstance(value, float):
        return next((form for form in _forms(value) if parse(form) == value), repr(value))
    return _text(value)


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _forms(value: float) -> Iterator[str]:
    usual = json.dumps(value)
    yield usual
    if "e" in usual:
        usual = f"{value:.20f}".rstrip("0")
    whole, _, fraction = usual.partition(".")
    for zeros in range(1, ZEROS + 1):
        if len(whole) + len(fraction) + zeros <= 18:
            yield f"{usual}{'0' * zeros}"
    decimal = Decimal(repr(value))
    for places in range(-SHIFTS, SHIFTS + 1):
        if places:
            yield f"{decimal.scaleb(places):f}e{-places}"
