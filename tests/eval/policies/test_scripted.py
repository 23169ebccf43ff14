"""Policies without a model score what the docs say: a metric that likes one of them measures nothing."""

from pathlib import Path
from typing import Any

import pytest

from eval.policies.base import Prompt
from eval.policies.load import load_policy
from eval.policies.scripted import GOLD, RULES
from eval.replies.calls import Call, Toolbox
from eval.rollouts.decisions import evaluate
from synthesis.errors import UserError

SCHEMA = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["mile", "yard"]},
        "value": {"$ref": "#/$defs/amount"},
        "note": {"type": "string"},
        "flag": {"type": ["boolean", "null"]},
        "list": {"type": "array"},
        "spare": {"type": "string"},
    },
    "required": ["unit", "value", "note", "flag", "list"],
    "$defs": {"amount": {"type": "number"}},
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "clock__now", "description": "The time.", "parameters": {}}},
    {"type": "function", "function": {"name": "units__convert", "description": "Convert units.", "parameters": SCHEMA}},
]


def test_gold_scores_full_marks_and_the_others_nothing(dataset: Path, tmp_path: Path) -> None:
    results = {name: evaluate(name, dataset, json_out=tmp_path / "out.json") for name in [*RULES, GOLD]}
    best = results[GOLD]["metrics"]
    too_much = ("distractor_rate", "extra_argument_rate", "redundant_call_rate")
    assert all(rate["value"] == (name not in too_much) for name, rate in best.items() if rate["n"]), best
    for name in RULES:
        metrics = results[name]["metrics"]
        assert metrics["acc_task"]["value"] == metrics["acc_intent"]["value"] == 0.0, name
        assert metrics["acc_icp_all"]["value"] < 0.5, name
    assert results["policy:no_op"]["metrics"]["stops"]["value"] == 1.0, "who never begins has no trouble to stop"
    assert results["policy:first_tool"]["metrics"]["stops"]["value"] == 0.0


def test_rules_make_calls_that_their_schema_takes() -> None:
    request = {"role": "user", "content": "Please convert 12.5 yard, thanks"}
    prompt = Prompt([request], TOOLS)
    [copied] = load_policy("policy:copy_request").reply([prompt])
    expected = {"unit": "yard", "value": 12.5, "note": request["content"], "flag": False, "list": []}
    assert copied.calls == (Call("units__convert", expected),)
    [first] = load_policy("policy:first_tool").reply([Prompt([request], TOOLS[::-1])])
    assert first.calls[0].arguments == {"unit": "mile", "value": 0, "note": "", "flag": False, "list": []}
    for reply in (copied, first):
        assert Toolbox(TOOLS).valid(reply.calls[0])
    assert all(not load_policy(name).reply([Prompt([request], [])])[0].calls for name in RULES)


def test_a_policy_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"policy:lazy: there is no such policy; there are policy:no_op, .*policy:gold"):
        load_policy("policy:lazy")
    with pytest.raises(UserError, match="policy:gold: it knows the answers, so only `rise eval` and `rise bench`"):
        load_policy(GOLD)
