"""Trajectories: plans of four patterns, executed from end to end, with proven data flow."""

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest
from fakes import CITIES, PAD, POLICIES, TOOLS, FakeAuthor, FakeServers

from synthesis.calls.effects import reads_only
from synthesis.calls.primitives import collect
from synthesis.journal import Journal
from synthesis.records import Primitive, ToolResult, Trajectory
from synthesis.trajectories.conditions import content_words, mentions
from synthesis.trajectories.execute import RejectedTrajectory, RejectionError, execute, generate
from synthesis.trajectories.plans import (
    MAX_CHARS,
    MAX_FAILURES,
    MAX_STEPS,
    MAX_TOOLS,
    MEMORY_SHARE,
    Plan,
    PlannedCall,
    PlannedCondition,
    Planner,
)


@pytest.fixture(scope="module")
def primitives(tmp_path_factory: pytest.TempPathFactory) -> Journal[Primitive]:
    journal = Journal(tmp_path_factory.mktemp("p") / "primitives.jsonl", Primitive)
    asyncio.run(collect([FakeServers()], POLICIES, FakeAuthor(), journal, per_tool=12, seed=0))
    return journal


def make(
    folder: Path, primitives: Journal[Primitive], servers: FakeServers, count: int = 60, chars: int = 200
) -> list[Trajectory]:
    with (
        Journal(folder / "trajectories.jsonl", Trajectory) as accepted,
        Journal(folder / "rejected.jsonl", RejectedTrajectory) as rejected,
    ):
        return asyncio.run(
            generate([servers], POLICIES, primitives, accepted, rejected, count=count, seed=0, result_chars=chars)
        )


def test_patterns_tools_and_lengths(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    made = make(tmp_path, primitives, FakeServers())
    assert len(made) == len({t.id for t in made}) == 60
    patterns = Counter(t.pattern for t in made)
    assert all(patterns[name] >= 5 for name in ("single", "sequential", "parallel", "conditional")), patterns
    assert {step.tool for t in made for step in t.steps} == set(TOOLS)
    for trajectory in made:
        assert 1 <= len(trajectory.steps) <= MAX_STEPS
        ids = [step.primitive_id for step in trajectory.steps]
        assert len(set(ids)) == len(ids)
        assert all(primitive_id in primitives for primitive_id in ids)
        assert (len(ids) == 1) == (trajectory.pattern == "single")
        sizes = [len(turn) for turn in trajectory.turns]
        assert sizes == ([len(ids)] if trajectory.pattern == "parallel" else [1] * len(ids))


def test_long_plans_call_few_tools_and_fit_a_prompt(primitives: Journal[Primitive]) -> None:
    planner = Planner(primitives, dict(TOOLS), POLICIES, 0)
    plans = []
    while len(plans) < 400 and (plan := planner.next()) is not None:
        planner.tell(plan, True)
        plans.append(plan)
    long = [plan for plan in plans if len(plan.calls) > 4]
    assert {len(plan.calls) for plan in long} >= {5, 6, 7, 8}
    assert all(planner._chars(plan) <= MAX_CHARS for plan in long)
    assert all(len({call.tool for call in plan.calls}) <= MAX_TOOLS for plan in long if plan.pattern == "sequential")
    assert max(len(plan.calls) for plan in plans) <= MAX_STEPS
    assert len(long) < 0.2 * len(plans), "most requests are short"


def test_two_steps_of_one_primitive_are_refused(primitives: Journal[Primitive]) -> None:
    one = next(p for p in primitives if p.tool == "weather__get_alerts")
    calls = tuple(PlannedCall(turn, one.tool, one.arguments, one.id) for turn in range(2))
    with pytest.raises(RejectionError, match="repeated_primitive"):
        asyncio.run(execute(FakeServers(), POLICIES, Plan("sequential", calls), {one.id: one}, 200))


def test_a_primitive_that_keeps_failing_is_planned_no_more(primitives: Journal[Primitive]) -> None:
    planner = Planner(primitives, dict(TOOLS), POLICIES, 0)
    bad = next(p for p in primitives if p.tool == "weather__get_alerts").id
    seen = 0
    for _ in range(200):
        if (plan := planner.next()) is None:
            break
        seen += bad in plan.primitive_ids
        planner.tell(plan, bad not in plan.primitive_ids)
    assert seen == MAX_FAILURES


def test_edges_are_proven_by_value(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    made = make(tmp_path, primitives, FakeServers())
    flowing = [t for t in made if t.edges]
    assert flowing
    for trajectory in flowing:
        for edge in trajectory.edges:
            assert edge.source < edge.target
            assert str(edge.value) in trajectory.steps[edge.source].result
            assert trajectory.steps[edge.target].arguments[edge.parameter] == edge.value
    used = {(s.tool, "pad_id") for t in flowing for s in t.steps if "pad_id" in s.arguments}
    assert used == {("notes__add_line", "pad_id"), ("notes__count_lines", "pad_id")}


def test_conditions_come_out_as_recorded_and_both_ways(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    made = [t for t in make(tmp_path, primitives, FakeServers(), 120) if t.condition]
    outcomes = Counter(t.condition.holds for t in made if t.condition)
    assert min(outcomes[True], outcomes[False]) >= 0.25 * len(made), outcomes
    for trajectory in made:
        condition = trajectory.condition
        assert condition is not None
        assert mentions(trajectory.steps[condition.step].result, condition.value) == condition.holds
        taken = (trajectory.steps[1].tool, trajectory.steps[1].arguments)
        branches = {True: (condition.then_tool, condition.then_arguments)}
        branches[False] = (condition.else_tool, condition.else_arguments)
        assert taken == branches[condition.holds]
        assert taken[0] != branches[not condition.holds][0]
        assert not mentions(str(trajectory.steps[0].arguments), condition.value)


def test_a_condition_holds_for_the_whole_answer_not_for_what_is_shown_of_it(primitives: Journal[Primitive]) -> None:
    look = next(p for p in primitives if p.tool == "weather__get_forecast" and p.verdict == "ok")
    taken, other = [p for p in primitives if p.tool == "weather__get_alerts" and p.verdict == "ok"][:2]
    calls = tuple(PlannedCall(turn, p.tool, p.arguments, p.id) for turn, p in enumerate((look, taken)))
    instead = PlannedCall(1, other.tool, other.arguments, other.id)
    known = {p.id: p for p in primitives}
    shown = 12
    word = re.findall(r"[A-Za-z]{3,}", look.result[shown:])[-1]
    plan = Plan("conditional", calls, PlannedCondition(word, False, instead))
    with pytest.raises(RejectionError, match=r"condition: .* is in the whole result"):
        asyncio.run(execute(FakeServers(), POLICIES, plan, known, shown))


def test_parallel_calls_do_not_depend_on_their_order(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    for trajectory in make(tmp_path, primitives, FakeServers(), 100):
        if trajectory.pattern == "parallel":
            writing = Counter(TOOLS[s.tool].server for s in trajectory.steps if not reads_only(TOOLS[s.tool]))
            touched = Counter(TOOLS[s.tool].server for s in trajectory.steps)
            assert all(touched[server] == 1 for server in writing)


def test_few_trajectories_need_a_restart(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    made = make(tmp_path, primitives, FakeServers(), 100)
    restarted = [t for t in made if any(step.tool.startswith("notes__") for step in t.steps)]
    assert 2 <= len(restarted) <= 100 * MEMORY_SHARE + 1


def test_a_call_that_fails_now_rejects_the_trajectory(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    made = make(tmp_path, primitives, FakeServers({"sums__add": ToolResult(text="boom", is_error=True)}), 40)
    assert Counter(t.pattern for t in made)["single"] >= 0.3 * len(made) == 12, "it does not block its pattern"
    assert all(step.tool != "sums__add" for t in made for step in t.steps)
    with Journal(tmp_path / "rejected.jsonl", RejectedTrajectory) as rejected:
        assert {r.reason.split(", ")[1] for r in rejected} == {"sums__add: is_error: boom"}


def test_an_answer_other_than_the_primitives_is_rejected(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    servers = FakeServers({"weather__get_alerts": ToolResult(text="All quiet")})
    make(tmp_path, primitives, servers, 40)
    with Journal(tmp_path / "rejected.jsonl", RejectedTrajectory) as rejected:
        assert any("not_repeatable" in r.reason for r in rejected)


def test_a_value_beyond_the_cap_is_no_proof(primitives: Journal[Primitive]) -> None:
    opening = next(p for p in primitives if p.tool == "notes__open_pad")
    adding = next(p for p in primitives if p.tool == "notes__add_line")
    flow = {"pad_id": {"$result": 0, "$pattern": PAD}, "line": "milk"}
    calls = (
        PlannedCall(0, opening.tool, opening.arguments, opening.id),
        PlannedCall(1, adding.tool, flow, adding.id),
    )
    known = {p.id: p for p in primitives}
    plan = Plan("sequential", calls)
    made = asyncio.run(execute(FakeServers(), POLICIES, plan, known, 200))
    assert made.id == plan.id
    assert [(e.source, e.target, e.value) for e in made.edges] == [(0, 1, "pad_1")]
    with pytest.raises(RejectionError, match="edge_not_proven"):
        asyncio.run(execute(FakeServers(), POLICIES, plan, known, 8))


def test_resume_executes_only_what_is_missing(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    faults = {"sums__add": ToolResult(text="boom", is_error=True)}
    whole = make(tmp_path, primitives, FakeServers(faults), 30)
    names = ("trajectories.jsonl", "rejected.jsonl")
    before = [(tmp_path / name).read_bytes() for name in names]
    idle = FakeServers(faults)
    assert make(tmp_path, primitives, idle, 30) == whole
    assert idle.calls == []
    for name, content in zip(names, before, strict=True):
        lines = content.splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(lines[: len(lines) // 2]))
    resumed = FakeServers(faults)
    assert make(tmp_path, primitives, resumed, 30) == whole
    assert resumed.calls
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_the_number_of_workers_changes_nothing(tmp_path: Path, primitives: Journal[Primitive]) -> None:
    alone = make(tmp_path / "1", primitives, FakeServers(), 40)
    with (
        Journal(tmp_path / "3" / "t", Trajectory) as accepted,
        Journal(tmp_path / "3" / "r", RejectedTrajectory) as rejected,
    ):
        pool = [FakeServers() for _ in range(3)]
        together = asyncio.run(generate(pool, POLICIES, primitives, accepted, rejected, count=40, seed=0))
    assert together == alone


def test_primitives_that_do_not_repeat_are_not_planned(primitives: Journal[Primitive]) -> None:
    unsteady = [p.model_copy(update={"deterministic": p.tool != "sums__add"}) for p in primitives]
    planner = Planner(unsteady, dict(TOOLS), POLICIES, 0)
    for _ in range(80):
        plan = planner.next()
        assert plan is not None
        planner.tell(plan, True)
        assert all(call.tool != "sums__add" for call in plan.calls)


def test_planner_ends_when_all_is_dealt(primitives: Journal[Primitive]) -> None:
    few = [p for p in primitives if p.tool == "weather__get_alerts"][:2]
    planner = Planner(few, dict(TOOLS), POLICIES, 0)
    dealt = []
    while (plan := planner.next()) is not None:
        planner.tell(plan, True)
        dealt.append(plan)
    assert Counter(plan.pattern for plan in dealt)["single"] == 2
    assert len({plan.id for plan in dealt}) == len(dealt) < 20


def test_mentions_whole_words_in_any_case() -> None:
    text = CITIES["Oslo"]
    assert mentions(text, "snow")
    assert not mentions(text, "north")


def test_conditions_hang_on_content_not_on_keys_and_paths() -> None:
    text = "{\"city\": \"Bern\", 'mood': 'sunny'} Status: see /data/report.docx, a.b@example.org or half-done work"
    assert content_words(text) == {"Bern", "sunny", "see", "work"}


def test_conditions_hang_on_whole_words_that_a_user_can_see(primitives: list[Primitive]) -> None:
    """Neither on the word that the cut goes through, nor on our own sign for what the clock wrote."""
    changed, known = [], set()
    for number, primitive in enumerate(primitives):
        if primitive.tool.startswith("weather") and not primitive.setup:
            ends = chr(ord("a") + number % 26) * 3
            known |= {f"pleasant{ends}", f"unneeded{ends}"}
            clock = "<volatile>" if number % 2 else ""
            said = f"{{'mood': 'pleasant{ends}', 'at': '{clock}', 'umbrella': 'unneeded{ends}'}}"
            primitive = primitive.model_copy(update={"result": said})
        changed.append(primitive)
    words = set()
    for limit in range(30, 72, 3):
        planner = Planner(changed, dict(TOOLS), POLICIES, 0, result_chars=limit)
        for _ in range(60):
            if (plan := planner.next()) is None:
                break
            planner.tell(plan, True)
            if plan.condition and plan.calls[0].tool.startswith("weather"):
                words.add(plan.condition.value)
    assert words
    assert not words - known


def test_what_opens_something_does_not_only_look() -> None:
    opening = TOOLS["notes__open_pad"].model_copy(update={"read_only": True})
    assert not reads_only(opening)
    assert reads_only(TOOLS["weather__get_alerts"].model_copy(update={"read_only": False}))
    assert reads_only(TOOLS["sums__add"])
