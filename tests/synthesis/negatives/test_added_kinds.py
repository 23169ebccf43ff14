"""The kinds of negatives beyond the paper's: distractors, extra arguments, sibling tools and neighbour values."""

from pathlib import Path

import pytest
from authoring import CONDITIONAL, PARALLEL, SINGLE, TOOLS, make_author, make_sample
from jsonschema import Draft202012Validator

from synthesis.authors.offline.author import OfflineAuthor
from synthesis.negatives.added_kinds import (
    extra_arguments,
    likeness,
    neighbour_values,
    proposer,
    siblings,
    values_seen,
)
from synthesis.negatives.mutations import apply, calls_of, negatives
from synthesis.records import CriticalParameter, Distractor, Json, Primitive, Sample, Step, Tool, Trajectory
from synthesis.text.evidence import supported

WIDE = Tool(
    server="shop",
    name="find_refunds",
    description="Find refunds of a customer.",
    input_schema={"type": "object", "properties": {"customer": {"type": "string"}}, "required": ["customer"]},
)
PAY = Tool(
    server="shop",
    name="pay",
    input_schema={"type": "object", "properties": {"card": {"type": "string"}}, "required": ["card"]},
)
ELSEWHERE = WIDE.model_copy(update={"server": "bank"})
SHOP = {**TOOLS, **{tool.full_name: tool for tool in (WIDE, PAY, ELSEWHERE)}}


@pytest.fixture
def author(tmp_path: Path) -> OfflineAuthor:
    return make_author(tmp_path)


def plain(**arguments: Json) -> Step:
    return Step(turn=0, tool="shop__find_orders", arguments=arguments, result="", primitive_id="p")


def primitive(verdict: str = "ok", **arguments: Json) -> Primitive:
    return Primitive.model_validate(
        {
            "id": str(arguments),
            "server": "shop",
            "tool": "shop__find_orders",
            "arguments": arguments,
            "result": "",
            "verdict": verdict,
            "coverage": "some",
        }
    )


def test_an_extra_argument_has_a_value_of_a_real_call_that_nobody_asked_for() -> None:
    seen = values_seen([primitive(since="2026-03-02"), primitive(since="2026-01-19"), primitive("rejected", since="x")])
    step, tool = plain(customer="Ben Costa"), TOOLS["shop__find_orders"]
    found = list(extra_arguments(0, step, tool, "Orders of Ben Costa on March 2nd", seen))
    assert [(m.parameter, m.after) for m in found] == [
        ("since", "2026-01-19"),
        ("order", "asc"),
        ("order", "desc"),
        ("paid", True),
    ]
    assert all(m.added and m.before is None and m.kind == "extra_argument" for m in found)
    named = extra_arguments(0, step, tool, "Orders of Ben Costa in the usual order, paid or not", {})
    assert list(named) == []


def test_defaults_and_empty_values_are_no_extra_arguments() -> None:
    seen = values_seen([primitive(limit=10), primitive(limit=12), primitive(since=""), primitive(paid=False)])
    found = list(extra_arguments(0, plain(customer="Ben"), TOOLS["shop__find_orders"], "Orders", seen))
    assert {(m.parameter, m.after) for m in found} == {("limit", 12), ("order", "asc"), ("order", "desc")}


def test_a_sibling_is_a_tool_of_the_same_server_that_takes_the_same_arguments() -> None:
    found = list(siblings(0, plain(customer="Ben Costa", limit=3), SHOP, frozenset({"shop__find_orders"})))
    assert [(m.before, m.after, m.arguments) for m in found] == [
        ("shop__find_orders", "shop__find_refunds", {"customer": "Ben Costa"})
    ]
    needed = frozenset({"shop__find_orders", "shop__find_refunds"})
    assert list(siblings(0, plain(customer="Ben Costa"), SHOP, needed)) == []
    variant = WIDE.model_copy(update={"name": "find_orders_safely"})
    safe = {**SHOP, variant.full_name: variant, "shop__find_orders": TOOLS["shop__find_orders"]}
    both = [m.after for m in siblings(0, plain(customer="Ben Costa"), safe, frozenset({"shop__find_orders"}))]
    assert both == ["shop__find_orders_safely", "shop__find_refunds"], "of those that only look, the answers decide"
    writer = TOOLS["shop__open_basket"]
    again = writer.model_copy(update={"name": "open_basket_safely"})
    opened = Step(turn=0, tool=writer.full_name, arguments={"city": "Oslo"}, result="", primitive_id="p")
    pair = {tool.full_name: tool for tool in (writer, again)}
    assert list(siblings(0, opened, pair, frozenset({writer.full_name}))) == []
    assert likeness(TOOLS["shop__find_orders"], WIDE) > likeness(TOOLS["shop__find_orders"], PAY)


def test_a_neighbour_value_is_what_the_request_says_for_another_parameter(author: OfflineAuthor) -> None:
    sample = make_sample(author, PARALLEL, 0)
    found = list(neighbour_values(sample, PARALLEL, 0, SHOP))
    assert [(m.step, m.parameter, m.before, m.after) for m in found] == [
        (0, "customer", "Anna Weber", "Clara Novak"),
        (1, "customer", "Clara Novak", "Anna Weber"),
    ], "`order` takes no name, and no name takes `desc`"
    assert all(supported(m.after, sample.request) for m in found)
    same = [
        step.model_copy(update={"arguments": {"customer": name}})
        for name, step in zip(("A", "B"), PARALLEL.steps, strict=True)
    ]
    swapped = PARALLEL.model_copy(update={"steps": same})
    critical = [
        CriticalParameter(step=i, parameter="customer", value=name, evidence=name, by_author=True, by_rule=True)
        for i, name in enumerate(("A", "B"))
    ]
    either = sample.model_copy(update={"critical": critical})
    assert list(neighbour_values(either, swapped, 0, SHOP)) == [], "that is the task's other call"


def ruling_out(sample: Sample, trajectory: Trajectory) -> Sample:
    distractor = Distractor(step=0, parameter="customer", value="Anna Weber", evidence="not Anna Weber")
    return sample.model_copy(
        update={"request": sample.request + ", not Anna Weber", "distractors": [distractor], "id": trajectory.id}
    )


def test_one_negative_in_five_is_of_a_further_kind_and_the_ruled_out_value_comes_first(author: OfflineAuthor) -> None:
    sample = ruling_out(make_sample(author, SINGLE, 0), SINGLE)
    further = proposer(SHOP, [primitive(since="2026-03-02")], 0)
    found = negatives(sample, SINGLE, SHOP, author, 10, 0, further, spare=4)
    kinds = [negative.kind for negative in found]
    assert len(found) == 14
    assert kinds.count("distractor") == 1
    assert kinds[0] == "distractor"
    assert kinds[1] in ("extra_argument", "sibling_tool", "neighbour_value")
    assert not {"distractor", "extra_argument", "sibling_tool", "neighbour_value"} & set(kinds[2:])
    assert found[0].mutations[0].after == "Anna Weber"
    assert supported("Anna Weber", sample.request)
    assert found == negatives(sample, SINGLE, SHOP, author, 10, 0, further, spare=4)
    paper = negatives(sample, SINGLE, SHOP, author, 10, 0)
    assert not {n.kind for n in paper} & {"distractor", "extra_argument", "sibling_tool", "neighbour_value"}
    assert all(m.after != "Anna Weber" for n in paper for m in n.mutations), "else what the request says is spared"


def test_small_budgets_get_their_share_on_average(author: OfflineAuthor) -> None:
    further = proposer(SHOP, [], 0)
    kinds = [
        negative.kind
        for variant in range(40)
        for negative in negatives(make_sample(author, SINGLE, variant), SINGLE, SHOP, author, 2, 0, further)
    ]
    assert 0.08 < kinds.count("sibling_tool") / len(kinds) + kinds.count("extra_argument") / len(kinds) < 0.35


def test_further_negatives_are_valid_and_never_call_what_the_task_needs(author: OfflineAuthor) -> None:
    further = proposer(SHOP, [primitive(since="2026-03-02")], 0)
    for trajectory in (SINGLE, CONDITIONAL):
        sample = make_sample(author, trajectory, 0)
        for negative in negatives(sample, trajectory, SHOP, author, 10, 0, further):
            gold = calls_of(trajectory, trajectory.turns[negative.turn])
            changed = apply(gold, negative, trajectory)
            assert changed != gold
            for call in changed:
                Draft202012Validator(SHOP[call["name"]].input_schema).validate(call["arguments"])
            if negative.kind == "sibling_tool":
                assert changed[0]["name"] not in {step.tool for step in trajectory.steps}
