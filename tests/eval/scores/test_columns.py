"""The columns: changes to a prediction whose effect is known, on every metric that compares values."""

from typing import Any

import pytest

from eval.replies.calls import Call, Reply, Toolbox
from eval.scores.columns import all_counts, all_rates

TEXT = {"type": "string"}
BOOK = {
    "type": "object",
    "properties": {
        "date": TEXT,
        "seats": {"type": "integer", "default": 2},
        "unit": {"enum": ["km", "kilometers", "mi"]},
        "length": TEXT,
        "tags": {"type": "array", "items": TEXT, "uniqueItems": True},
        "stops": {"type": "array", "items": TEXT},
        "note": {"type": ["string", "null"]},
    },
    "required": ["date"],
    "additionalProperties": False,
}
FIND = {"type": "object", "properties": {"city": TEXT}, "required": ["city"]}
TOOLS = Toolbox(
    [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in {"book": BOOK, "cancel": BOOK, "find": FIND}.items()
    ]
)
RIGHT = {"date": "2026-01-19", "seats": 5, "unit": "km", "length": "12 km", "tags": ["a", "b"], "stops": ["x", "y"]}
BOOKED, FOUND = Call("book", RIGHT), Call("find", {"city": "São Paulo"})
GOLD = (BOOKED, FOUND)
CRITICAL = [{"call": 0, "parameter": key, "value": value} for key, value in RIGHT.items()]
CRITICAL.append({"call": 1, "parameter": "city", "value": "São Paulo"})


def scores(*calls: Call, gold: tuple[Call, ...] = GOLD, critical: list[dict[str, Any]] = CRITICAL) -> dict[str, float]:
    counts = all_counts([(gold, critical, Reply("", calls))], TOOLS)
    return {name: rate["value"] for name, rate in all_rates([{"id": "a", "counts": counts}]).items()}


def booked(**changes: Any) -> Call:
    kept = {key: value for key, value in {**RIGHT, **changes}.items() if value != "-"}
    return Call("book", kept)


SAME, MEANT, OTHER = (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)
"""Whether it is right exactly, and normalised."""


@pytest.mark.parametrize(
    ("calls", "task", "intent", "right_icps"),
    [
        ((BOOKED, FOUND), SAME, SAME, (7, 7)),
        ((FOUND, BOOKED), SAME, SAME, (7, 7)),  # parallel calls are free in order
        ((booked(seats=5.0), FOUND), SAME, SAME, (7, 7)),
        ((booked(seats="5"), FOUND), OTHER, SAME, (7, 7)),  # the value is right, the type is the schema's business
        ((booked(note=None), FOUND), SAME, SAME, (7, 7)),
        ((booked(note="by the window"), FOUND), OTHER, SAME, (7, 7)),
        ((booked(date="19 January 2026"), FOUND), MEANT, MEANT, (6, 7)),
        ((booked(date="Jan 19 2026"), FOUND), MEANT, MEANT, (6, 7)),
        ((booked(date="2026-01-20"), FOUND), OTHER, OTHER, (6, 6)),
        ((booked(length="12 kilometers"), FOUND), OTHER, OTHER, (6, 6)),  # text, no unit of its own
        ((booked(unit="kilometers"), FOUND), OTHER, OTHER, (6, 6)),  # the schema tells the two apart
        ((booked(tags=["b", "a"]), FOUND), MEANT, MEANT, (6, 7)),
        ((booked(stops=["y", "x"]), FOUND), OTHER, OTHER, (6, 6)),
        ((booked(seats="-"), FOUND), OTHER, OTHER, (6, 6)),  # the default is another number
        ((BOOKED, Call("find", {"city": "Sa\u0303o Paulo"})), SAME, SAME, (7, 7)),
        ((BOOKED, Call("find", {"city": "sao paulo"})), OTHER, OTHER, (6, 6)),
        ((BOOKED, Call("find", {"town": "São Paulo"})), OTHER, OTHER, (6, 6)),
        ((BOOKED,), OTHER, OTHER, (6, 6)),
        ((Call("cancel", RIGHT), FOUND), OTHER, OTHER, (1, 1)),
        ((BOOKED, FOUND, FOUND), SAME, OTHER, (7, 7)),  # extra calls are allowed in the one and not in the other
        ((), OTHER, OTHER, (0, 0)),
    ],
)
def test_a_change_has_its_known_effect(
    calls: tuple[Call, ...], task: tuple[float, float], intent: tuple[float, float], right_icps: tuple[int, int]
) -> None:
    found = scores(*calls)
    assert (found["acc_task.exact"], found["acc_task.normalised"]) == task
    assert (found["acc_intent.exact"], found["acc_intent.normalised"]) == intent
    assert (found["acc_icp_all.exact"] * 7, found["acc_icp_all.normalised"] * 7) == pytest.approx(right_icps)
    for name in ("acc_task", "acc_intent", "acc_icp", "acc_icp_all"):
        assert found[f"{name}.exact"] == found[name]


def test_a_default_may_be_said_or_left_out() -> None:
    for asked, given in ((2, "-"), ("-", 2)):
        found = scores(booked(seats=given), gold=(booked(seats=asked),), critical=[])
        assert (found["acc_task.exact"], found["acc_task.normalised"], found["extra_argument_rate"]) == (1, 1, 0)


def test_what_is_too_much_is_counted() -> None:
    found = scores(booked(note="by the window"), FOUND, Call("cancel", {"date": "2026-01-19"}), FOUND)
    assert found["distractor_rate"] == 1 / 4
    assert found["extra_argument_rate"] == 1 / 8
    assert found["redundant_call_rate"] == 1 / 4


def test_a_call_that_is_asked_for_twice_is_not_redundant() -> None:
    assert scores(FOUND, FOUND, gold=(FOUND, FOUND))["redundant_call_rate"] == 0


def test_a_schema_that_cannot_be_read_costs_no_result() -> None:
    odd = Toolbox([{"type": "function", "function": {"name": "book", "parameters": {"properties": ["date"]}}}])
    assert odd.same(Call("book", {"date": "2026-01-19"}), Call("book", {"date": "19 Jan 2026"}))
