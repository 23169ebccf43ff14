"""Held-out tools: test has all of them, train meets none, not even as a tool that merely stands in the prompt."""

import json
from dataclasses import replace

import pytest
from fakes import TOOLS

from synthesis.dataset.holdout import held_out_tools
from synthesis.dataset.rows import preference_rows, sft_row
from synthesis.dataset.source import Source
from synthesis.dataset.split import split
from synthesis.errors import UserError
from synthesis.records import Mutation, Negative

FIELDS = {server: f"field of {server}" for server in {tool.server for tool in TOOLS.values()}}


def busy(source: Source) -> str:
    """A tool that many trajectories use, also as one step of several."""
    used = [{step.tool for step in t.steps} for t in source.trajectories.values()]
    return max(sorted(source.tools), key=lambda name: (any(name in u and len(u) > 1 for u in used), name))


def test_a_held_out_tool_is_in_test_alone(source: Source) -> None:
    name = busy(source)
    held = replace(source, held_out=held_out_tools([f"tool:{name}"], source.tools, FIELDS), tools_per_prompt=8)
    train, test = split(held)
    touching = {s.id for s in source.samples if name in source.needed(s)}
    assert 0 < len(touching) < len(source.samples)
    assert touching <= {s.id for s in test}
    assert len(test) > len(touching), "the usual share of the others is there too"
    rows = [sft_row(held, s) for s in train] + [r for s in train for r in preference_rows(held, s)]
    assert len(rows) > len(train) > 0
    assert not [row["meta"]["id"] for row in rows if json.dumps(name) in json.dumps(row)]
    assert {row["meta"]["id"] for row in (sft_row(held, s) for s in test) if row["meta"]["held_out"]} == touching


def test_a_negative_that_calls_a_held_out_tool_stays_out_of_train(source: Source) -> None:
    name = busy(source)
    held = replace(source, held_out=frozenset({name}))
    sample = next(s for s in split(held)[0] if len(held.trajectories[s.trajectory_id].steps) == 1)
    step = held.trajectories[sample.trajectory_id].steps[0]
    mutation = Mutation(step=0, parameter="", kind="sibling_tool", before=step.tool, after=name)
    negative = Negative(
        id="x", sample_id=sample.id, turn=0, kind="sibling_tool", mutations=[mutation], score=0.5, primitive_ids=[]
    )
    lone = replace(held, negatives={sample.id: [negative]})
    assert preference_rows(lone, sample) == []


def test_servers_and_fields_hold_out_all_their_tools() -> None:
    server = sorted(FIELDS)[0]
    expected = {name for name, tool in TOOLS.items() if tool.server == server}
    assert held_out_tools([f"server:{server}"], TOOLS, FIELDS) == expected
    assert held_out_tools([f"field:field of {server}"], TOOLS, FIELDS) == expected
    assert held_out_tools([], TOOLS, FIELDS) == set()
    assert held_out_tools([f"server:{s}" for s in FIELDS], TOOLS, FIELDS) == set(TOOLS)


@pytest.mark.parametrize(
    ("name", "said"), [("weather", "expected server:NAME"), ("server:", "expected"), ("tool:nope", "no tool is called")]
)
def test_a_wrong_name_is_one_clear_sentence(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        held_out_tools([name], TOOLS, FIELDS)


def test_holding_out_everything_is_refused(source: Source) -> None:
    with pytest.raises(UserError, match="nothing is left for train"):
        split(replace(source, held_out=frozenset(source.tools)))
