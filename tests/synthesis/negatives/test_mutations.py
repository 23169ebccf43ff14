"""Negatives: valid calls that deviate from the request in critical parameters, and only there."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from authoring import (
    CONDITIONAL,
    PARALLEL,
    SEQUENTIAL,
    SINGLE,
    TOOLS,
    TRAJECTORIES,
    make_author,
    make_sample,
)
from jsonschema import Draft202012Validator

from synthesis.authors.offline.author import OfflineAuthor
from synthesis.negatives.distances import Distance, meaning, surface
from synthesis.negatives.mutations import THRESHOLD, Site, _drawn, allowed, apply, deletable, negatives, sites
from synthesis.negatives.sampling import complexity
from synthesis.records import Sample, Tool, Trajectory
from synthesis.text.embedding import available
from synthesis.text.equality import same_meaning
from synthesis.text.evidence import supported


@pytest.fixture
def author(tmp_path: Path) -> OfflineAuthor:
    return make_author(tmp_path)


def calls_of(trajectory: Trajectory, turn: int) -> list[dict]:  # type: ignore[type-arg]
    steps = [trajectory.steps[i] for i in trajectory.turns[turn]]
    return [{"name": step.tool, "arguments": dict(step.arguments)} for step in steps]


@pytest.mark.parametrize("trajectory", TRAJECTORIES, ids=lambda t: t.pattern)
def test_every_negative_is_valid_different_and_not_asked_for(author: OfflineAuthor, trajectory: Trajectory) -> None:
    for variant in range(4):
        sample = make_sample(author, trajectory, variant)
        found = negatives(sample, trajectory, TOOLS, author, 8, seed=0)
        assert {n.turn for n in found} == set(range(len(trajectory.turns)))
        assert len({n.id for n in found}) == len(found)
        critical = {(c.step, c.parameter) for c in sample.critical}
        for negative in found:
            gold = calls_of(trajectory, negative.turn)
            changed = apply(gold, negative, trajectory)
            assert gold == calls_of(trajectory, negative.turn)
            assert changed != gold
            assert 0 < negative.score <= 1
            for call in changed:
                Draft202012Validator(TOOLS[call["name"]].input_schema).validate(call["arguments"])
            for mutation in negative.mutations:
                assert (mutation.step, mutation.parameter) in critical
                assert mutation.before == trajectory.steps[mutation.step].arguments[mutation.parameter]
                assert mutation.deleted or not same_meaning(mutation.before, mutation.after)
                assert mutation.deleted or not supported(mutation.after, sample.request)
                assert trajectory.steps[mutation.step].primitive_id in negative.primitive_ids


def test_all_but_the_mutated_arguments_stay_and_keep_their_order(author: OfflineAuthor) -> None:
    sample = make_sample(author, PARALLEL, 0)
    for negative in negatives(sample, PARALLEL, TOOLS, author, 12, seed=0):
        gold, changed = calls_of(PARALLEL, 0), apply(calls_of(PARALLEL, 0), negative, PARALLEL)
        touched = {(m.step, m.parameter) for m in negative.mutations}
        for i, (before, after) in enumerate(zip(gold, changed, strict=True)):
            assert before["name"] == after["name"]
            assert list(after["arguments"]) == [p for p in before["arguments"] if p in after["arguments"]]
            differing = {p for p, v in before["arguments"].items() if after["arguments"].get(p) != v}
            assert differing == {p for step, p in touched if step == i}


def test_negatives_of_all_kinds_come_up(author: OfflineAuthor) -> None:
    kinds: Counter[str] = Counter()
    for trajectory in TRAJECTORIES:
        for variant in range(12):
            found = negatives(make_sample(author, trajectory, variant), trajectory, TOOLS, author, 8, seed=0)
            kinds.update(n.kind for n in found)
    expected = {
        "hypernym",
        "hyponym",
        "co_hyponym",
        "irrelevance",
        "antonym",
        "lexical_similarity",
        "deletion",
        "combination",
    }
    assert set(kinds) == expected
    assert max(kinds.values()) < sum(kinds.values()) / 2


def test_an_argument_from_an_earlier_result_is_never_mutated(author: OfflineAuthor) -> None:
    sample = make_sample(author, SEQUENTIAL, 0)
    found = negatives(sample, SEQUENTIAL, TOOLS, author, 20, seed=0)
    assert found
    assert all(m.parameter != "basket_id" for n in found for m in n.mutations)


def test_the_branch_not_taken_is_no_source_of_negatives(author: OfflineAuthor) -> None:
    sample = make_sample(author, CONDITIONAL, 0)
    values = {str(m.after) for n in negatives(sample, CONDITIONAL, TOOLS, author, 40, seed=0) for m in n.mutations}
    assert not values & {"Anna Weber", "Cairo"}


def test_a_disputed_parameter_is_left_alone(author: OfflineAuthor) -> None:
    sample = make_sample(author, SINGLE, 0)
    disputed = [c.model_copy(update={"by_rule": c.parameter == "since"}) for c in sample.critical]
    found = negatives(sample.model_copy(update={"critical": disputed}), SINGLE, TOOLS, author, 9, seed=0)
    assert {m.parameter for n in found for m in n.mutations} == {"since"}


def test_nothing_to_mutate_gives_no_negative(author: OfflineAuthor) -> None:
    sample = make_sample(author, SINGLE, 0)
    assert negatives(sample.model_copy(update={"critical": []}), SINGLE, TOOLS, author, 9, seed=0) == []


def test_guards() -> None:
    tool = TOOLS["shop__find_orders"]
    arguments = {"customer": "Ben Costa", "limit": 5, "order": "asc"}
    request = "find the orders of Ben Costa, not of Anna Weber, at most 5"
    assert allowed(tool, arguments, "limit", 6, request)
    assert not allowed(tool, arguments, "limit", 60, request), "above the maximum"
    assert not allowed(tool, arguments, "limit", "6", request), "another type"
    assert not allowed(tool, arguments, "limit", 5.5, request), "a fraction"
    assert not allowed(tool, arguments, "customer", "ben  costa", request), "the same after normalisation"
    assert not allowed(tool, arguments, "customer", "Anna Weber", request), "the request has it"
    assert not allowed(tool, arguments, "order", "newest", request), "not in the enumeration"


def test_only_what_may_go_and_matters_is_deleted() -> None:
    tool = TOOLS["shop__find_orders"]
    assert deletable(tool, {"customer": "Ben Costa", "limit": 5}, "limit")
    assert not deletable(tool, {"customer": "Ben Costa", "limit": 10}, "limit"), "10 is the default"
    assert not deletable(tool, {"customer": "Ben Costa"}, "customer")
    assert not deletable(tool, {"customer": "Ben Costa", "since": "/data"}, "since"), "where servers work anyway"


@pytest.mark.parametrize(
    ("schema", "value", "may_go"),
    [
        ({"type": "boolean"}, False, False),
        ({"type": "boolean", "default": None}, False, False),
        ({"type": "boolean"}, True, True),
        ({"type": "boolean", "default": True}, False, True),
        ({"type": "string"}, "", False),
        ({"type": "array"}, [], False),
        ({"type": "string", "description": "Where it stands. Defaults to 'after'."}, "after", False),
        ({"type": "string", "description": "Where it stands (default: after)"}, "after", False),
        ({"type": "string", "description": "before, or after (the default)"}, "after", False),
        ({"type": "string", "description": "Where it stands. Defaults to 'after'."}, "before", True),
        ({"type": "string", "default": "CET"}, "Europe/Rome", False),
        ({"type": "string", "default": "fluid ounce"}, "fluid ounce (US)", False),
        ({"type": "integer", "description": "Default 10"}, 10, False),
    ],
)
def test_what_silence_says_too_is_not_deleted(schema: dict[str, Any], value: Any, may_go: bool) -> None:
    tool = Tool(server="s", name="t", input_schema={"type": "object", "properties": {"p": schema}})
    assert deletable(tool, {"p": value}, "p") == may_go


def test_a_default_in_the_tools_own_docstring_counts() -> None:
    schema = {"type": "object", "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}}}
    text = "Draw a box.\n\nArgs:\n    width: in points, default 72\n    height: in points\n"
    tool = Tool(server="s", name="t", description=text, input_schema=schema)
    assert not deletable(tool, {"width": 72, "height": 72}, "width")
    assert deletable(tool, {"width": 72, "height": 72}, "height")


def test_the_least_complex_tenth_is_dropped_however_few_the_parameters() -> None:
    for count in (1, 2, 5, 8):
        near, far = [[0.01, 0.9]] * count, [[0.9, 0.95]] * count
        for pools, all_drawn in ((near, False), (far, True)):
            here = [Site(None, [None] * 2, options) for options in pools]  # type: ignore[arg-type, list-item]
            rng = random.Random(0)
            drawn = list(_drawn(here, 3**count, 0, rng)) if count < 5 else list(_drawn(here, 400, 0, rng))
            scores = [complexity(len(m), count, d) for m, d in drawn]
            assert min(scores) >= 0.5 / count + THRESHOLD * (1 - 0.5 / count) - 0.01
            if count < 5:
                assert (len(drawn) == 3**count - 1) == all_drawn


def test_budget_is_met_exactly_where_there_is_enough(author: OfflineAuthor) -> None:
    for count in (1, 4, 16):
        for variant in range(5):
            sample: Sample = make_sample(author, SINGLE, variant)
            assert len(negatives(sample, SINGLE, TOOLS, author, count, seed=7)) == count
    assert any(site.options for site in sites(make_sample(author, SINGLE, 0), SINGLE, 0, TOOLS, author, 0))


ENCODER = pytest.mark.skipif(not available(), reason="the extra `embeddings` is not installed")


@pytest.mark.parametrize("distance", [surface, pytest.param(meaning, marks=ENCODER)])
def test_deviation_grows_with_distance(distance: Distance) -> None:
    pairs = [
        (19, 20),
        (19, 91),
        ("annual report", "annual reports"),
        ("annual report", "penguin"),
        (True, False),
        (5, -5),
    ]
    near, far, plural, other, boolean, sign = distance(pairs)
    assert near < far < 1
    assert plural < other <= 1
    assert boolean == sign == 1


@ENCODER
def test_meaning_sees_what_letters_do_not(author: OfflineAuthor) -> None:
    pairs = [("car", "automobile"), ("car", "cat")]
    assert meaning(pairs)[0] < meaning(pairs)[1]
    assert surface(pairs)[0] > surface(pairs)[1]
    sample = make_sample(author, SINGLE, 0)
    scores = [
        [n.score for n in negatives(sample, SINGLE, TOOLS, author, 6, 0, distance=distance)]
        for distance in (surface, meaning)
    ]
    assert scores[0] != scores[1]
