"""The metrics on hand-made turns, the awkward ones first of all."""

import random
from typing import Any

import pytest

from eval.replies.calls import Call, Reply, Toolbox
from eval.scores.metrics import FIELDS, METRICS, Counts, align, rates, score_task, table

INTEGER, STRING = {"type": "integer"}, {"type": "string"}


def tool(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = Toolbox(
    [
        tool("read", ["sheet"], sheet=STRING, rows={**INTEGER, "default": 10}),
        tool("convert", ["time", "zone"], time=STRING, zone=STRING),
    ]
)
READ = Call("read", {"sheet": "Orders", "rows": 3})
CONVERT = Call("convert", {"time": "09:30", "zone": "Asia/Tokyo"})


def icp(call: int, parameter: str, value: Any) -> dict[str, Any]:
    return {"call": call, "parameter": parameter, "value": value}


READ_ICPS = [icp(0, "sheet", "Orders"), icp(0, "rows", 3)]


def score(gold: list[Call], critical: list[dict[str, Any]], *predicted: Call, problem: str = "") -> Counts:
    return score_task([(gold, critical, Reply("", predicted, problem))], TOOLS)


def flags(counts: Counts) -> tuple[int, int, int]:
    return counts.task, counts.intent, counts.match


def test_the_right_call_scores_everything() -> None:
    counts = score([READ], READ_ICPS, READ)
    assert counts == Counts(1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1)


def test_an_extra_call_keeps_the_task_and_loses_intent_and_precision() -> None:
    counts = score([READ], READ_ICPS, READ, CONVERT)
    assert flags(counts) == (1, 0, 0)
    assert (counts.tools_correct, counts.calls_predicted, counts.tools_gold) == (1, 2, 1)
    assert counts.icp_equal == counts.icp_aligned == 2


def test_a_repeated_call_is_an_extra_call() -> None:
    counts = score([READ], READ_ICPS, READ, READ)
    assert flags(counts) == (1, 0, 0)
    assert (counts.tools_correct, counts.calls_predicted) == (1, 2)


def test_a_missing_call_costs_recall_and_all_but_not_right_tool_icps() -> None:
    gold, critical = [READ, CONVERT], [*READ_ICPS, icp(1, "time", "09:30")]
    counts = score(gold, critical, READ)
    assert flags(counts) == (0, 0, 0)
    assert (counts.tools_correct, counts.tools_gold, counts.calls_predicted) == (1, 2, 1)
    assert (counts.icp_equal, counts.icp_aligned, counts.icp_gold) == (2, 2, 3)


def test_the_right_tool_with_a_wrong_value() -> None:
    counts = score([READ], READ_ICPS, Call("read", {"sheet": "Orders", "rows": 4}))
    assert flags(counts) == (0, 0, 0)
    assert (counts.tools_correct, counts.icp_equal, counts.icp_aligned, counts.calls_valid) == (1, 1, 2, 1)


def test_a_wrong_tool_is_left_out_of_the_conditional_icp_rate_only() -> None:
    counts = score([READ], READ_ICPS, CONVERT)
    assert (counts.icp_equal, counts.icp_aligned, counts.icp_gold) == (0, 0, 2)
    assert (counts.tools_correct, counts.calls_predicted, counts.calls_valid) == (0, 1, 1)
    assert flags(counts) == (0, 0, 0)


def test_a_wrong_value_that_is_not_critical_costs_the_task_but_not_intent() -> None:
    counts = score([READ], [icp(0, "sheet", "Orders")], Call("read", {"sheet": "orders ", "rows": 9}))
    assert flags(counts) == (0, 1, 0)


def test_two_calls_of_one_tool_are_matched_by_their_arguments_not_their_order() -> None:
    other = Call("read", {"sheet": "Summary", "rows": 5})
    critical = [*READ_ICPS, icp(1, "sheet", "Summary"), icp(1, "rows", 5)]
    swapped = score([READ, other], critical, other, READ)
    assert flags(swapped) == (1, 1, 1)
    assert swapped.icp_equal == 4
    half = score([READ, other], critical, Call("read", {"sheet": "Summary", "rows": 3}), READ)
    assert (half.icp_equal, half.icp_aligned) == (3, 4)
    assert flags(half) == (0, 0, 0)


def test_one_call_cannot_answer_two_equal_ones() -> None:
    counts = score([READ, READ], [*READ_ICPS, icp(1, "rows", 3)], READ)
    assert flags(counts) == (0, 0, 0)
    assert (counts.tools_correct, counts.tools_gold, counts.icp_equal, counts.icp_gold) == (1, 2, 2, 3)


def test_the_most_equivalent_calls_are_paired_first() -> None:
    near = Call("read", {"sheet": "Orders", "rows": 8})
    assert align([READ, near], (near, READ), READ_ICPS, TOOLS) == {0: 1, 1: 0}
    assert align([READ], (near, READ), READ_ICPS, TOOLS) == {0: 1}


def test_an_unreadable_reply_is_one_invalid_call() -> None:
    counts = score([READ], READ_ICPS, problem="unreadable tool call: x")
    assert (counts.calls_valid, counts.calls_predicted, counts.tools_correct, counts.tools_gold) == (0, 1, 0, 1)
    assert (counts.icp_equal, counts.icp_aligned, counts.icp_gold) == (0, 0, 2)
    assert flags(counts) == (0, 0, 0)


def test_an_unknown_tool_is_an_invalid_call() -> None:
    assert score([READ], READ_ICPS, Call("reed", READ.arguments)).calls_valid == 0


def test_three_and_three_point_zero_are_one_number() -> None:
    assert flags(score([READ], READ_ICPS, Call("read", {"sheet": "Orders", "rows": 3.0}))) == (1, 1, 1)


def test_a_number_as_text_says_the_value_but_is_no_valid_call() -> None:
    counts = score([READ], READ_ICPS, Call("read", {"sheet": "Orders", "rows": "3"}))
    assert (counts.icp_equal, counts.calls_valid) == (2, 0)
    assert flags(counts) == (0, 1, 0)


def test_case_and_spaces_are_forgiven_except_by_the_exact_match() -> None:
    assert flags(score([READ], READ_ICPS, Call("read", {"sheet": " orders", "rows": 3}))) == (1, 1, 0)


@pytest.mark.parametrize(("gold", "predicted"), [({}, {"rows": 10}), ({"rows": 10}, {})])
def test_an_optional_default_may_be_written_or_left_out(gold: dict[str, int], predicted: dict[str, int]) -> None:
    critical = [icp(0, key, value) for key, value in gold.items()]
    counts = score([Call("read", {"sheet": "A", **gold})], critical, Call("read", {"sheet": "A", **predicted}))
    assert flags(counts) == (1, 1, 0)
    assert counts.icp_equal == counts.icp_gold


def test_a_dropped_critical_parameter_without_default_is_wrong() -> None:
    counts = score([CONVERT], [icp(0, "zone", "Asia/Tokyo")], Call("convert", {"time": "09:30"}))
    assert (counts.icp_equal, counts.icp_aligned, counts.calls_valid) == (0, 1, 0)


def test_an_added_argument_spoils_the_task() -> None:
    assert flags(score([Call("read", {"sheet": "A"})], [], Call("read", {"sheet": "A", "rows": 4}))) == (0, 1, 0)


def test_one_wrong_turn_spoils_the_task_and_counts_add_up() -> None:
    turns = [([READ], READ_ICPS, Reply("", (READ,))), ([CONVERT], [], Reply("", (), "no tool call in the reply"))]
    counts = score_task(turns, TOOLS)
    assert flags(counts) == (0, 0, 0)
    assert (counts.calls_valid, counts.calls_predicted, counts.tools_gold, counts.tasks) == (1, 2, 2, 1)


def test_an_exact_match_is_also_a_task_done_and_an_intent_met() -> None:
    rng = random.Random(0)
    pool = [
        READ,
        CONVERT,
        Call("read", {"sheet": "Orders"}),
        Call("read", {"sheet": "Orders", "rows": 10}),
        Call("x", {}),
    ]
    matches = 0
    for _ in range(400):
        gold = rng.choices(pool[:4], k=rng.randint(1, 3))
        critical = [icp(i, k, v) for i, c in enumerate(gold) for k, v in c.arguments.items() if rng.random() < 0.7]
        counts = score(gold, critical, *rng.choices(pool, k=rng.randint(0, 3)))
        matches += counts.match
        assert counts.match <= min(counts.task, counts.intent)
        assert counts.icp_equal <= counts.icp_aligned <= counts.icp_gold
        assert counts.tools_correct <= min(counts.calls_predicted, counts.tools_gold)
        assert counts.calls_valid <= counts.calls_predicted
    assert matches > 10


def entry(task_id: str, **counts: int) -> dict[str, Any]:
    return {"id": task_id, "counts": {**Counts().as_dict(), **counts}}


def test_rates_divide_sums_and_hold_their_value_in_their_interval() -> None:
    hits = [entry(f"h{i}", calls_valid=1, calls_predicted=1, icp_equal=2, icp_aligned=2, icp_gold=2) for i in range(30)]
    half = [entry(f"m{i}", task=0, intent=0, match=0, calls_predicted=2, icp_gold=3, icp_aligned=1) for i in range(10)]
    found = rates([*hits, *half])
    assert found["acc_task"]["value"] == found["acc_intent"]["value"] == 0.75
    assert found["acc_task"]["n"] == 40
    assert found["acc_call"] == {**found["acc_call"], "value": 30 / 50, "n": 50}
    assert found["acc_icp"]["value"] == 60 / 70
    assert found["acc_icp_all"]["value"] == 60 / 90
    for rate in found.values():
        assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
        assert rate["low"] < rate["high"]


def test_rates_are_the_same_in_any_order_of_tasks_and_twice() -> None:
    rng = random.Random(1)
    tasks = [entry(str(i), calls_valid=rng.randint(0, 2), calls_predicted=2, task=rng.randint(0, 1)) for i in range(60)]
    assert rates(tasks) == rates(tasks[::-1]) == rates(tasks)


def test_nothing_to_divide_by_is_said_so() -> None:
    assert rates([entry("a")])["acc_icp_all"] == {"value": 0.0, "low": 0.0, "high": 1.0, "n": 0}


def test_pooling_seeds_keeps_tasks_together() -> None:
    runs = [entry(f"t{i}", task=int(i < 20)) for i in range(40)]
    once, thrice = rates(runs), rates(runs * 3)
    assert thrice["acc_task"]["n"] == 120
    assert thrice["acc_task"]["value"] == once["acc_task"]["value"]
    width = {name: r["acc_task"]["high"] - r["acc_task"]["low"] for name, r in (("once", once), ("thrice", thrice))}
    assert width["thrice"] > 0.9 * width["once"], "three copies of the same answers are no more evidence than one"
    gathered = table(runs * 3)
    assert (len(gathered.ids), gathered.repeats) == (40, 3)
    assert gathered.counts[:, FIELDS.index("tasks")].tolist() == [3.0] * 40


def test_the_metrics_are_those_that_the_ablation_promises() -> None:
    names = "acc_task acc_call tool_precision tool_recall acc_icp acc_icp_all acc_intent trajectory_match stops"
    assert {m.name for m in METRICS} == set(names.split())
