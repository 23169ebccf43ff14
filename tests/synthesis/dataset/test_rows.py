"""Rows and candidate sets."""

from collections import Counter
from dataclasses import replace
from random import Random

from fakes import TOOLS

from synthesis.dataset.prompt_tools import tool_lists
from synthesis.dataset.rows import preference_rows, sft_row
from synthesis.dataset.source import Row, Source
from synthesis.records import Tool


def groups(source: Source) -> list[Row]:
    return [row for sample in source.samples for row in preference_rows(source, sample)]


def test_sft_rows_hold_the_real_conversation(source: Source) -> None:
    assert len(source.samples) == 120
    for sample in source.samples:
        trajectory = source.trajectories[sample.trajectory_id]
        row = sft_row(source, sample)
        roles = [message["role"] for message in row["messages"]]
        expected = ["user"]
        for turn in trajectory.turns:
            expected += ["assistant", *["tool"] * len(turn)]
        assert roles == [*expected, "assistant"]
        assert row["messages"][0]["content"] == sample.request
        results = [(m["name"], m["content"]) for m in row["messages"] if m["role"] == "tool"]
        assert results == [(step.tool, step.result) for step in trajectory.steps]
        assert row["meta"]["primitive_ids"] == [step.primitive_id for step in trajectory.steps]
        calls = [[c["function"] for c in m["tool_calls"]] for m in row["messages"] if m.get("tool_calls")]
        for critical in row["meta"]["critical"]:
            arguments = calls[critical["turn"]][critical["call"]]["arguments"]
            assert arguments[critical["parameter"]] == critical["value"]


def test_groups_deviate_only_in_critical_parameters(source: Source) -> None:
    rows = groups(source)
    assert len(rows) > 100
    assert len({row["meta"]["id"] for row in rows}) == len(rows)
    for row in rows:
        gold = [c["function"] for c in row["chosen"][0]["tool_calls"]]
        allowed = {(c["call"], c["parameter"]) for c in row["meta"]["critical"]}
        assert 1 <= len(row["rejected"]) <= 4
        assert len(row["rejected"]) == len(row["meta"]["negatives"])
        assert len(gold) == len(row["meta"]["primitive_ids"])
        for (message,), told in zip(row["rejected"], row["meta"]["negatives"], strict=True):
            calls = [c["function"] for c in message["tool_calls"]]
            assert [c["name"] for c in calls] == [c["name"] for c in gold]
            changed = {
                (index, name)
                for index, (call, original) in enumerate(zip(calls, gold, strict=True))
                for name in {*call["arguments"], *original["arguments"]}
                if call["arguments"].get(name) != original["arguments"].get(name)
            }
            assert changed
            assert changed == {(m["call"], m["parameter"]) for m in told["mutations"]}
            assert changed <= allowed
            for call, original in zip(calls, gold, strict=True):
                kept = [name for name in original["arguments"] if name in call["arguments"]]
                assert list(call["arguments"]) == kept, "gold's order of arguments"


def test_groups_of_later_turns_hold_the_real_history(source: Source) -> None:
    later = [row for row in groups(source) if row["meta"]["turn"] > 0]
    assert later
    for row in later:
        trajectory = source.trajectories[row["meta"]["trajectory_id"]]
        told = [message["content"] for message in row["prompt"] if message["role"] == "tool"]
        assert told == [step.result for step in trajectory.steps if step.turn < row["meta"]["turn"]]


def test_requests_share_lists_of_tools_where_one_fits() -> None:
    def tool(name: str) -> Tool:
        return Tool(server="shop" if name < "d" else "bank", name=name, input_schema={})

    tools = {tool(name).full_name: tool(name) for name in "abcdefgh"}
    names = list(tools)
    draw = Random(0)
    wanted = {f"s{i}": draw.sample(names, draw.choice((1, 1, 2, 2, 3, 5))) for i in range(300)}
    found = tool_lists(wanted, tools, 4, 0)
    assert all(set(wanted[sample]) <= set(found[sample]) for sample in wanted)
    assert all(len(found[sample]) == max(4, len(wanted[sample])) for sample in wanted)
    short = {tuple(found[sample]) for sample in wanted if len(wanted[sample]) < 5}
    assert 10 < len(short) < 100, "a list serves several requests, and is not always the same"
    assert found == tool_lists(dict(reversed(wanted.items())), tools, 4, 0)
    assert found != tool_lists(wanted, tools, 4, 1)


def test_candidate_sets_hold_gold_siblings_and_others(source: Source) -> None:
    positions: Counter[int] = Counter()
    for sample in source.samples:
        trajectory = source.trajectories[sample.trajectory_id]
        names = [spec["function"]["name"] for spec in source.prompt_tools[sample.id]]
        gold = {step.tool for step in trajectory.steps}
        if trajectory.condition:
            gold |= {trajectory.condition.then_tool, trajectory.condition.else_tool}
        assert gold <= set(names)
        assert len(names) == len(set(names)) == max(4, len(gold))
        positions[names.index(trajectory.steps[0].tool)] += 1
    assert len(positions) >= 4, "gold stands anywhere"
    wide = replace(source, tools_per_prompt=50)
    assert len(wide.prompt_tools[source.samples[0].id]) == len(TOOLS)
