"""Rows, candidate sets, the split by group, and files that are the same twice."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from fakes import TOOLS, FakeAuthor
from hypothesis import given
from hypothesis import strategies as st

from synthesis.dataset import exact_json
from synthesis.dataset import rows as dataset
from synthesis.dataset.rows import Source, candidate_tools, preference_rows, schema_order, sft_row, split
from synthesis.journal import Journal
from synthesis.negatives import mutations
from synthesis.records import Sample
from synthesis.requests.samples import RejectedSample, compose

FACTS = {"isolation": "none", "seed": 0}


def groups(source: Source) -> list[dataset.Row]:
    return [row for sample in source.samples for row in preference_rows(source, sample, mutations.apply)]


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


def test_candidate_sets_hold_gold_siblings_and_others(source: Source) -> None:
    positions: Counter[int] = Counter()
    for sample in source.samples:
        trajectory = source.trajectories[sample.trajectory_id]
        names = [spec["function"]["name"] for spec in candidate_tools(source, sample)]
        gold = {step.tool for step in trajectory.steps}
        if trajectory.condition:
            gold |= {trajectory.condition.then_tool, trajectory.condition.else_tool}
        assert gold <= set(names)
        assert len(names) == len(set(names)) == max(4, len(gold))
        positions[names.index(trajectory.steps[0].tool)] += 1
    assert len(positions) >= 4, "gold stands anywhere"
    wide = replace(source, tools_per_prompt=50)
    assert len(candidate_tools(wide, source.samples[0])) == len(TOOLS)


def test_arguments_stand_in_the_order_of_the_schema() -> None:
    tool = TOOLS["weather__get_forecast"]
    assert list(schema_order(tool, {"day": "Friday", "city": "Bern"})) == ["city", "day"]


def test_split_is_by_group_and_balanced(source: Source) -> None:
    train, test = split(source)
    assert len(train) + len(test) == len(source.samples)
    assert 0.1 <= len(test) / len(source.samples) <= 0.3

    def keys(samples: list[Sample]) -> set[str]:
        steps = {s.id: source.trajectories[s.trajectory_id].steps for s in samples}
        calls = {json.dumps([[x.tool, x.arguments] for x in steps[s.id]]) for s in samples}
        return {s.trajectory_id for s in samples} | {dataset.normal(s.request) for s in samples} | calls

    assert not keys(train) & keys(test)
    assert {s.pattern for s in test} == {s.pattern for s in train}


def test_near_duplicates_are_one_group(source: Source) -> None:
    first, *others = source.samples
    twins = [s.model_copy(update={"request": first.request.upper() + "!"}) for s in others[:30]]
    train, test = split(replace(source, samples=[first, *twins, *others[30:]]))
    sides = [{s.id for s in side} for side in (train, test)]
    group = {first.id, *(s.id for s in twins)}
    assert sum(bool(group & side) for side in sides) == 1


def test_drafts_that_leave_something_unsaid_or_repeat_are_rejected(source: Source, tmp_path: Path) -> None:
    class Silent(FakeAuthor):
        def compose(self, trajectory, tools, variant, seed):  # type: ignore[no-untyped-def]
            draft = super().compose(trajectory, tools, 0, seed)
            return draft.model_copy(update={"critical": [], "request": "Do the usual."}) if variant > 1 else draft

    rejected = Journal(tmp_path / "r", RejectedSample)
    made = list(source.trajectories.values())[:10]
    samples = compose(made, TOOLS, Silent(), Journal(tmp_path / "s", Sample), rejected, count=40, seed=0)
    assert len(samples) == 10
    reasons = Counter(r.reason.split(":")[0] for r in rejected)
    assert reasons["duplicate"] == 10
    assert reasons["unsaid"] == 60


def test_written_twice_is_the_same_to_the_byte_and_reads_back_exactly(source: Source, tmp_path: Path) -> None:
    from datasets import load_from_disk

    def hashes(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    counts = dataset.write(source, tmp_path / "one", mutations.apply, FACTS)
    shuffled = replace(source, samples=list(reversed(source.samples)))
    dataset.write(shuffled, tmp_path / "two", mutations.apply, FACTS)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert not (tmp_path / "one.partial").exists()

    train, test = split(source)
    read = load_from_disk(str(tmp_path / "one" / "sft"))
    assert read["train"].to_list() == [sft_row(source, sample) for sample in train]
    order = [list(c["function"]["arguments"]) for m in read["test"][0]["messages"] for c in m.get("tool_calls", [])]
    assert order == [
        list(c["function"]["arguments"]) for m in sft_row(source, test[0])["messages"] for c in m.get("tool_calls", [])
    ]
    groups_read = load_from_disk(str(tmp_path / "one" / "preference"))
    expected = [row for sample in test for row in preference_rows(source, sample, mutations.apply)]
    assert groups_read["test"].to_list() == expected
    assert str(groups_read["train"].features["rejected"]).startswith("List(List(Json")
    assert counts["positives"] == 120
    assert counts["negatives"] == sum(len(row["rejected"]) for row in groups(source))
    card = (tmp_path / "one" / "README.md").read_text()
    assert "| conditional |" in card
    assert "- isolation: none" in card


@given(st.integers(-(10**7), 10**7), st.integers(0, 7))
def test_numbers_that_people_write_come_back_exactly(digits: int, places: int) -> None:
    from datasets.utils.json import ujson_loads

    value = digits / 10**places
    text = exact_json.dumps({"x": [value]}, ujson_loads)
    assert ujson_loads(text) == {"x": [value]} == json.loads(text)


def test_text_comes_back_exactly() -> None:
    from datasets.utils.json import ujson_loads

    value = {"b": 'quote " slash / back \\ line \n \u2028 \U0001f600 é', "a": [None, True, 3, 0.3, {}, []], "é": 10**15}
    text = exact_json.dumps(value, ujson_loads)
    assert ujson_loads(text) == value == json.loads(text)
    assert list(ujson_loads(text)) == ["b", "a", "é"]
