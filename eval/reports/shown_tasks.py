"""The report's samples: which tasks to show, and where each arm's calls deviate from what was asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eval.replies.calls import Call, Toolbox, alike
from eval.scores.metrics import align
from synthesis.records import Json
from synthesis.seeds import seeded

RIGHT = ("exact", "equivalent")
"""Verdicts on a turn (`eval.rollouts.decisions`) that count as doing what was asked."""


@dataclass(frozen=True)
class Argument:
    """One argument as the report shows it; `state` is "ok", "wrong", "missing" or "extra"."""

    key: str
    value: Json
    state: str = "ok"
    expected: Json = None
    critical: bool = False


@dataclass(frozen=True)
class ShownCall:
    """One call as the report shows it; `state` is "ok", "extra" (not asked for) or "missing"."""

    name: str
    arguments: list[Argument]
    state: str = "ok"


@dataclass(frozen=True)
class Answer:
    """What one or several arms answered alike. `reply` is shown where no call could be read."""

    arms: list[str]
    verdict: str
    calls: list[ShownCall]
    problem: str = ""
    reply: str = ""


@dataclass(frozen=True)
class Shown:
    """One task of the report: the turn in which the first arm deviates, or the last turn where none does."""

    id: str
    pattern: str
    request: str
    turn: int
    turns: int
    gold: list[ShownCall]
    answers: list[Answer] = field(default_factory=list)


def choose(results: Mapping[str, Mapping[str, Any]], count: int = 10, seed: int = 0) -> list[Shown]:
    """Pick tasks that show how the arms differ: from each combination of right and wrong arms in turn, at random.

    Nothing is picked for looking good: a combination such as "the trained arm broke it" has its turn as any other.

    Args:
        results: arm -> result of `eval.rollouts.decisions.evaluate`; tasks that not every arm was given are left out.
    """
    tasks = {arm: {task["id"]: task for task in result["tasks"]} for arm, result in results.items()}
    shared = sorted(set.intersection(*(set(found) for found in tasks.values()))) if tasks else []
    groups: dict[tuple[bool, ...], list[str]] = {}
    for task_id in shared:
        groups.setdefault(tuple(_right(found[task_id]) for found in tasks.values()), []).append(task_id)
    mixed_first = sorted(groups.items(), key=lambda group: (all(group[0]) or not any(group[0]), group[0]))
    queues = [seeded(seed, "samples", key).sample(ids, len(ids)) for key, ids in mixed_first]
    chosen: list[str] = []
    while len(chosen) < min(count, len(shared)):
        chosen += [queue.pop() for queue in queues if queue]
    return [shown({arm: found[task_id] for arm, found in tasks.items()}) for task_id in chosen[:count]]


def shown(by_arm: Mapping[str, Mapping[str, Any]]) -> Shown:
    """One task with the answers of all arms; arms that made the same calls stand together."""
    task = next(iter(by_arm.values()))
    wrong = [
        i for i in range(len(task["turns"])) if any(t["turns"][i]["verdict"] not in RIGHT for t in by_arm.values())
    ]
    index = wrong[0] if wrong else len(task["turns"]) - 1
    gold = task["turns"][index]
    critical = {(entry["call"], entry["parameter"]) for entry in gold["critical"]}
    calls = [
        ShownCall(call["name"], [Argument(k, v, critical=(i, k) in critical) for k, v in call["arguments"].items()])
        for i, call in enumerate(gold["gold"])
    ]
    answers: list[Answer] = []
    for arm, found in by_arm.items():
        answer = _answer(arm, found["turns"][index])
        twin = next(
            (a for a in answers if (a.calls, a.problem, a.reply) == (answer.calls, answer.problem, answer.reply)), None
        )
        if twin:
            twin.arms.append(arm)
        else:
            answers.append(answer)
    return Shown(task["id"], task["pattern"], task["request"], index + 1, len(task["turns"]), calls, answers)


def _right(task: Mapping[str, Any]) -> bool:
    return all(turn["verdict"] in RIGHT for turn in task["turns"])


def _answer(arm: str, turn: Mapping[str, Any]) -> Answer:
    gold = [Call(call["name"], call["arguments"]) for call in turn["gold"]]
    predicted = [Call(call["name"], call["arguments"]) for call in turn["predicted"]]
    if turn["problem"]:
        return Answer([arm], turn["verdict"], [], turn["problem"], turn["reply"])
    pairs = {j: i for i, j in align(gold, predicted, turn["critical"], Toolbox([])).items()}
    critical = {(entry["call"], entry["parameter"]) for entry in turn["critical"]}
    calls = []
    for j, call in enumerate(predicted):
        if j not in pairs:
            calls.append(ShownCall(call.name, [Argument(k, v) for k, v in call.arguments.items()], "extra"))
        else:
            marked = {key for index, key in critical if index == pairs[j]}
            calls.append(_compared(gold[pairs[j]], call, marked, turn["verdict"] in RIGHT))
    missing = [call for i, call in enumerate(gold) if i not in pairs.values()]
    return Answer([arm], turn["verdict"], calls + [ShownCall(call.name, [], "missing") for call in missing])


def _compared(gold: Call, call: Call, critical: set[str], right: bool) -> ShownCall:
    """The call in gold's order, with its deviating arguments marked; a call that was found equivalent has none."""
    arguments = []
    for key, expected in gold.arguments.items():
        value = call.arguments.get(key)
        if key in call.arguments:
            state = "ok" if right or alike(expected, value) else "wrong"
            arguments.append(Argument(key, value, state, expected, key in critical))
        elif not right:
            arguments.append(Argument(key, None, "missing", expected, key in critical))
    added = [(key, value) for key, value in call.arguments.items() if key not in gold.arguments]
    return ShownCall(call.name, arguments + [Argument(k, v, "ok" if right else "extra") for k, v in added])
