"""Parallel calls one after the other: nothing is lost, nothing is invented, and wrong answers stay comparable."""

import copy
from typing import Any

import pytest
from handmade import calls, preference_rows, result, sft_row

from eval.replies.one_call_a_turn import MARK, linear_groups, linear_messages, linear_row
from eval.rollouts.decisions import task_of
from synthesis.errors import UserError


def flat(messages: list[dict[str, Any]]) -> list[Any]:
    """The conversation as a list of calls, results and words."""
    out: list[Any] = []
    for message in messages:
        out += [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
        out += [message["content"]] if message["content"] else []
    return out


def test_calls_and_results_take_turns() -> None:
    row = sft_row(2)
    line = linear_row(row)
    assert [m["role"] for m in line["messages"]] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert sorted(map(str, flat(line["messages"]))) == sorted(map(str, flat(row["messages"])))
    for i in (1, 3):
        assert len(line["messages"][i]["tool_calls"]) == 1
        assert line["messages"][i + 1]["name"] == line["messages"][i]["tool_calls"][0]["function"]["name"]
    assert line["meta"][MARK] == 1
    assert linear_row(line) == line


def test_critical_parameters_follow_their_calls() -> None:
    line = linear_row(sft_row(2))
    task = task_of(line)
    assert len(task.decisions) == 2
    for decision in task.decisions:
        assert all(decision.gold[0].arguments[c["parameter"]] == c["value"] for c in decision.critical)
    assert sum(len(d.critical) for d in task.decisions) == len(sft_row(2)["meta"]["critical"])


@pytest.mark.parametrize("index", [0, 1])
def test_rows_without_parallel_calls_stay(index: int) -> None:
    row = sft_row(index)
    assert linear_row(row) == row
    for group in preference_rows(row):
        assert linear_groups(group, row["messages"]) == ([group], 0)


def test_text_beside_calls_goes_with_the_first() -> None:
    message = calls(("a", {}), ("b", {})) | {"content": "Both."}
    assert [m["content"] for m in linear_messages([message, result("a", "1"), result("b", "2")])] == [
        "Both.",
        "1",
        "",
        "2",
    ]


def test_missing_results_are_a_mistake() -> None:
    with pytest.raises(UserError, match="2 calls of one turn are not followed by 2 results"):
        linear_messages([calls(("a", {}), ("b", {})), result("a", "1"), {"role": "assistant", "content": "x"}])


def parallel_group() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A group whose negatives deviate in the first call (title), in both, in the second alone, and in their number."""
    row = sft_row(2)
    group = preference_rows(row)[0]
    first = group["rejected"][0]
    second = copy.deepcopy(group["chosen"])
    second[0]["tool_calls"][1]["function"]["arguments"]["city"] = "Oslo"
    both = copy.deepcopy(first)
    both[0]["tool_calls"][1] = copy.deepcopy(second[0]["tool_calls"][1])
    short, long = copy.deepcopy(group["chosen"]), copy.deepcopy(group["chosen"])
    short[0]["tool_calls"].pop()
    long[0]["tool_calls"].append(copy.deepcopy(second[0]["tool_calls"][1]))
    mutation = group["meta"]["negatives"][0]
    other = copy.deepcopy(mutation) | {"id": "n2"}
    other["mutations"][0] |= {"call": 1, "parameter": "city", "before": "Quito", "after": "Oslo"}
    group["meta"]["critical"] = row["meta"]["critical"]
    group["rejected"] = [first, second, both, short, long]
    group["meta"]["negatives"] = [mutation, other, mutation, other, other]
    return group, row["messages"]


def test_pairs_are_at_the_first_call_that_differs() -> None:
    group, messages = parallel_group()
    line = linear_messages(messages)
    groups, lost = linear_groups(group, messages)
    assert lost == 2  # `both` says at its first call what `first` says, and `short` ends before it deviates
    assert [g["prompt"] for g in groups] == [line[:1], line[:3], line[:5]]
    assert [g["chosen"] for g in groups] == [line[1:2], line[3:4], line[5:6]]
    assert [[r[0]["tool_calls"] for r in g["rejected"]] for g in groups] == [
        [group["rejected"][0][0]["tool_calls"][:1]],
        [group["rejected"][1][0]["tool_calls"][1:]],
        [group["rejected"][4][0]["tool_calls"][2:]],
    ]
    assert [g["meta"][MARK]["call"] for g in groups] == [0, 1, 2]
    assert len({g["meta"]["id"] for g in groups}) == 3
    assert [c["parameter"] for c in groups[1]["meta"]["critical"]] == ["city", "date"]
    assert groups[1]["meta"]["negatives"][0]["mutations"][0]["call"] == 0


def test_without_the_conversation_only_the_first_call_can_be_compared() -> None:
    group, _ = parallel_group()
    groups, lost = linear_groups(group, None)
    assert (len(groups), len(groups[0]["rejected"]), lost) == (1, 1, 4)
    assert groups[0]["prompt"] == group["prompt"]


def test_history_becomes_linear_too() -> None:
    row = sft_row(2)
    history = row["messages"][:4]
    group = {
        "prompt": [*history, {"role": "user", "content": "Cancel it."}],
        "chosen": [calls(("calendar__drop", {"title": "Review"}))],
        "rejected": [[calls(("calendar__drop", {"title": "Lunch"}))]],
        "tools": row["tools"],
        "meta": {"id": "g"},
    }
    groups, lost = linear_groups(group, None)
    assert lost == 0
    assert groups[0]["prompt"][:-1] == linear_messages(history)
