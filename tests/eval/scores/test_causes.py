"""Each cause of a missed parameter, on a request with two cities and an earlier result."""

from typing import Any

import pytest

from eval.replies.calls import Call, Reply, Toolbox
from eval.scores.causes import CAUSES, missed, tally

TEXT = {"type": "string"}
SCHEMA = {"type": "object", "properties": {"city": TEXT, "unit": {**TEXT, "default": "metric"}}}
TOOLS = Toolbox([{"function": {"name": "weather", "parameters": SCHEMA}}, {"function": {"name": "map"}}])
MESSAGES = [
    {"role": "system", "content": "You are in Oslo."},
    {"role": "user", "content": "Not in Rome but in Villingen-Schwenningen, please; 12:30."},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "map", "arguments": {"area": "Ulm"}}}]},
    {"role": "tool", "name": "map", "content": "Aalen, Bern"},
]
GOLD = [Call("weather", {"city": "Villingen-Schwenningen"})]
CRITICAL = [{"call": 0, "parameter": "city", "value": "Villingen-Schwenningen"}]


def causes(reply: Reply) -> list[Any]:
    return [entry["cause"] for entry in missed(MESSAGES, GOLD, CRITICAL, reply, TOOLS)]


def weather(**arguments: Any) -> Reply:
    return Reply("", (Call("weather", arguments),))


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (Reply("hm", problem="no tool call in the reply"), "unreadable"),
        (Reply("", (Call("map", {"city": "Rome"}),)), "other_tool"),
        (weather(unit="metric"), "left_out"),
        (weather(city="rome"), "of_request"),
        (weather(city="Aalen"), "of_result"),
        (weather(city="Ulm"), "of_result"),
        (weather(city="Villingen-Schweningen"), "miscopied"),
        (weather(city="Oslo"), "invented"),
        (weather(city="2"), "invented"),
        (weather(city=""), "invented"),
    ],
)
def test_each_cause_is_told(reply: Reply, cause: str) -> None:
    assert causes(reply) == [cause]


def test_what_is_met_is_not_missed() -> None:
    assert causes(weather(city="villingen-schwenningen ")) == []
    default = [{"call": 0, "parameter": "unit", "value": "metric"}]
    assert missed(MESSAGES, GOLD, default, weather(city="x"), TOOLS) == []


def test_the_tally_names_every_cause() -> None:
    turns = [{"missed": missed(MESSAGES, GOLD, CRITICAL, weather(city=city), TOOLS)} for city in ("Rome", "Rome", "x")]
    found = tally([{"turns": turns[:1]}, {"turns": turns[1:]}])
    assert list(found) == list(CAUSES)
    assert {cause: n for cause, n in found.items() if n} == {"of_request": 2, "invented": 1}
