"""Whether two names are of one thing: a unit of measure, a country, a time zone."""

import re
from functools import cache, lru_cache
from typing import Any

_NOTE = re.compile(r"\s*\([^()]*\)$")
_COUNTRIES = {"uk": "GB", "great britain": "GB", "britain": "GB", "holland": "NL", "america": "US", "u.s.": "US"}
"""What people call countries besides their names and codes in ISO 3166."""


def same_name(first: str, second: str) -> bool:
    """Whether both name one unit, country or time zone, or differ only by a note in brackets that one of them has."""
    left, right = first.strip(), second.strip()
    noted = bool(_NOTE.search(left)) != bool(_NOTE.search(right))
    if noted and _NOTE.sub("", left).casefold() == _NOTE.sub("", right).casefold():
        return True
    ways = [_unit, _country, *([] if "/" in left and "/" in right else [_zone])]
    return any((found := known(left)) is not None and found == known(right) for known in ways)


@cache
def _units() -> Any:
    import pint

    return pint.UnitRegistry()


@lru_cache(maxsize=4096)
def _unit(name: str) -> str | None:
    """The unit that a name or a symbol stands for, spelled in one way; None for what is none.

    Only words and symbols of two characters or more are looked at: a single letter is many things.
    """
    if not re.fullmatch(r"[A-Za-z\u00b0\u00b5][A-Za-z\u00b0\u00b5/ ^0-9_-]{1,40}", name):
        return None
    from pint import PintError

    try:
        return str(_units().Unit(name.replace(" ", "_") if " per " not in name else name))
    except (PintError, ArithmeticError, AssertionError, SyntaxError, TypeError, ValueError):
        return None  # pint reads a small language, and words of others break it in all these ways


@lru_cache(maxsize=4096)
def _country(name: str) -> str | None:
    """The ISO 3166 code of a country, by any of its names and codes."""
    import pycountry

    if len(name) < 4 and not name.isupper():  # "no" and "in" are words
        return None
    if name.casefold() in _COUNTRIES:
        return _COUNTRIES[name.casefold()]
    try:
        return str(pycountry.countries.lookup(name).alpha_2)
    except LookupError:
        return None


@lru_cache(maxsize=4096)
def _zone(name: str) -> tuple[object, ...] | None:
    """What a time zone without a region (`CET`) makes of each month of a year; those of regions are their own."""
    from datetime import datetime
    from zoneinfo import ZoneInfo, available_timezones

    if name not in _zones(available_timezones):
        return None
    zone = ZoneInfo(name)
    return tuple(datetime(2026, month, 15, tzinfo=zone).utcoffset() for month in range(1, 13))


@cache
def _zones(listed: Any) -> frozenset[str]:
    return frozenset(listed())
