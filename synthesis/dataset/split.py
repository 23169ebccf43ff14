"""Train and test: by group, so that nothing stands on both sides."""

import json
from collections import Counter, defaultdict

from synthesis.dataset.source import Source
from synthesis.errors import UserError
from synthesis.records import Sample
from synthesis.seeds import digest
from synthesis.text.equality import request_key

TEST_SHARE = 0.2


def split(source: Source) -> tuple[list[Sample], list[Sample]]:
    """Train and test, 8:2 within each pattern, by group.

    A group is what hangs together through a trajectory, an equal normalised request or an equal sequence of calls: it
    never stands on both sides. Test takes groups with a call that train has nowhere, and others only where there are
    not enough. A group with a held-out tool goes to test as a whole, on top of the usual share of the others.

    Raises `UserError` where holding out leaves nothing for train.
    """
    groups: list[list[Sample]] = []
    held: list[list[Sample]] = []
    for group in _groups(source):
        (held if any(source.holds_out(sample) for sample in group) else groups).append(group)
    if held and not groups:
        raise UserError("--hold-out: every sample needs a held-out tool, so nothing is left for train.")
    by_pattern: dict[str, list[list[Sample]]] = defaultdict(list)
    for group in groups:
        by_pattern[group[0].pattern].append(group)
    test = {sample.id for group in held for sample in group}
    train_has = Counter(call for group in groups for call in _calls(group, source))
    for pattern in sorted(by_pattern):
        found = sorted(by_pattern[pattern], key=lambda group: digest("split", source.seed, group[0].id))
        wanted = TEST_SHARE * sum(map(len, found))
        taken = 0
        for only_new in (True, False):
            for group in found:
                calls = _calls(group, source)
                known = group[0].id in test or (only_new and min(train_has[call] for call in calls) > 1)
                if not known and taken + len(group) / 2 <= wanted:
                    test |= {sample.id for sample in group}
                    taken += len(group)
                    train_has.subtract(calls)
    ordered = sorted(source.samples, key=lambda sample: sample.id)
    return [s for s in ordered if s.id not in test], [s for s in ordered if s.id in test]


def _calls(group: list[Sample], source: Source) -> set[str]:
    """The calls of a group, each once."""
    steps = [step for sample in group for step in source.trajectories[sample.trajectory_id].steps]
    return {json.dumps([step.tool, step.arguments], sort_keys=True) for step in steps}


def _groups(source: Source) -> list[list[Sample]]:
    """Connected components of the samples, by union-find over what they share."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    ordered = sorted(source.samples, key=lambda sample: sample.id)
    for sample in ordered:
        steps = source.trajectories[sample.trajectory_id].steps
        calls = json.dumps([[step.turn, step.tool, step.arguments] for step in steps], sort_keys=True)
        for key in ("trajectory " + sample.trajectory_id, "request " + request_key(sample.request), "calls " + calls):
            parent[root(key)] = root("sample " + sample.id)
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in ordered:
        groups[root("sample " + sample.id)].append(sample)
    return list(groups.values())
