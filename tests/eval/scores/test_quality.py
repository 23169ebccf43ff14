"""Quality by rule: each rule holds and breaks where it should."""

from typing import Any

import pytest

from eval.replies.calls import Call
from eval.scores.quality import RULES, Example, counts_of, quality

SCHEMA = {
    "type": "object",
    "properties": {
        "date": {"type": "string"},
        "days": {"type": "integer"},
        "country": {"type": "string"},
        "size": {"enum": ["small", "large"]},
        "page": {"type": "integer", "default": 1},
        "verbose": {"type": "boolean"},
        "names": {"type": "array", "items": {"type": "string"}},
    },
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]


def counts(request: str, *calls: Call, results: tuple[str, ...] = ()) -> dict[str, tuple[int, int]]:
    return counts_of(Example("a", request, TOOLS, calls, results))


def look(**arguments: Any) -> Call:
    return Call("look", arguments)


@pytest.mark.parametrize(
    ("request_", "arguments", "expected"),
    [
        ("What happens on 19 January 2026?", {"date": "2026-01-19"}, (1, 1)),
        ("What happens on 20 January 2026?", {"date": "2026-01-19"}, (0, 1)),
        ("The date 20 days before that?", {"days": -20}, (1, 1)),
        ("Holidays in China?", {"country": "CN"}, (1, 1)),
        ("Holidays in Chile?", {"country": "CN"}, (0, 1)),
        ("Anna and Ben?", {"names": ["Anna", "Ben"]}, (1, 1)),
        ("Anna and Ben?", {"names": ["Anna", "Cleo"]}, (0, 1)),
        ("The first page", {"page": 1}, (0, 0)),  # its default, so nobody's
        ("Everything", {"verbose": True, "names": [], "date": ""}, (0, 0)),
        ("Everything", {"date": "${date from getDetails}"}, (0, 0)),
    ],
)
def test_values_are_those_that_the_request_says(
    request_: str, arguments: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert counts(request_, look(**arguments))["value_consistency"] == expected


def test_a_value_of_an_earlier_result_is_not_the_users() -> None:
    first, second = look(country="Peru"), look(date="2026-01-19")
    assert counts("Peru's next holiday", first, second, results=("It is on 2026-01-19", ""))["value_consistency"] == (
        1,
        1,
    )
    assert counts("Peru's next holiday", first, second, results=("", "2026-01-19"))["value_consistency"] == (1, 2)


def test_names_values_and_repetitions() -> None:
    found = counts("", look(size="huge"), look(days="3"), look(size="small"), look(size="small"))
    assert (found["value_validity"], found["call_conciseness"], found["name_validity"]) == ((2, 4), (3, 4), (4, 4))
    found = counts("", look(colour="red"), Call("seek", {"size": "small"}))
    assert (found["name_validity"], found["value_validity"]) == ((0, 2), (0, 0))


def test_rates_have_intervals_over_examples() -> None:
    right = Example("a", "19 January 2026", TOOLS, [look(date="2026-01-19")])
    wrong = Example("b", "20 January 2026", TOOLS, [look(date="2026-01-19")])
    found = quality([right] * 30 + [wrong] * 10)
    assert list(found) == list(RULES)
    rate = found["value_consistency"]
    assert (rate["value"], rate["n"]) == (0.75, 40)
    assert 0.55 < rate["low"] < 0.75 < rate["high"] < 0.9
    assert quality([])["name_validity"]["n"] == 0
