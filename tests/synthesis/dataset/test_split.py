"""The split by group."""

import json
from dataclasses import replace

from synthesis.dataset.source import Source
from synthesis.dataset.split import split
from synthesis.records import Sample
from synthesis.text.equality import request_key


def test_split_is_by_group_and_balanced(source: Source) -> None:
    train, test = split(source)
    assert len(train) + len(test) == len(source.samples)
    assert 0.1 <= len(test) / len(source.samples) <= 0.3

    def keys(samples: list[Sample]) -> set[str]:
        steps = {s.id: source.trajectories[s.trajectory_id].steps for s in samples}
        calls = {json.dumps([[x.tool, x.arguments] for x in steps[s.id]]) for s in samples}
        return {s.trajectory_id for s in samples} | {request_key(s.request) for s in samples} | calls

    assert not keys(train) & keys(test)
    assert {s.pattern for s in test} == {s.pattern for s in train}


def test_near_duplicates_are_one_group(source: Source) -> None:
    first, *others = source.samples
    twins = [s.model_copy(update={"request": first.request.upper() + "!"}) for s in others[:30]]
    train, test = split(replace(source, samples=[first, *twins, *others[30:]]))
    sides = [{s.id for s in side} for side in (train, test)]
    group = {first.id, *(s.id for s in twins)}
    assert sum(bool(group & side) for side in sides) == 1


def test_test_takes_what_holds_a_call_that_train_has_nowhere(source: Source) -> None:
    """Every second trajectory or so has a call of its own; the others are put together from two small sets."""
    trajectories, new = {}, set()
    for number, (id_, trajectory) in enumerate(source.trajectories.items()):
        step = trajectory.steps[0]
        is_new = int(id_, 16) % 2 == 1
        new |= {id_} if is_new else set()
        cities = (f"first {number % 5}", f"own {number}" if is_new else f"second {number % 7}")
        call = {"tool": "weather__get_alerts"}
        pair = [step.model_copy(update={**call, "arguments": {"city": city}}) for city in cities]
        trajectories[id_] = trajectory.model_copy(update={"steps": pair})
    changed = replace(source, trajectories=trajectories)
    train, test = split(changed)
    assert 0.1 <= len(test) / len(source.samples) <= 0.3
    known = {step.arguments["city"] for s in train for step in trajectories[s.trajectory_id].steps}
    for sample in test:
        assert {step.arguments["city"] for step in trajectories[sample.trajectory_id].steps} - known
    few = replace(changed, samples=[sample for sample in changed.samples if sample.trajectory_id not in new])
    _, test = split(few)
    assert 0.1 <= len(test) / len(few.samples) <= 0.3, "where there are no others, it takes what there is"
