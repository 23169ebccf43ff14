"""The step-wise rollout: every call turn of every test task is decided anew, given the history as it was recorded.

This is how an agent runs, one turn at a time, with the difference that the history is gold's, with the real results
(GTA's step-by-step mode, teacher forcing): an early error does not spoil later turns, and no server is needed. Where
the conversation ends in words the model is asked as well, to see whether it stops.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.policies.base import Policy, Prompt
from eval.policies.load import engine, load_policy
from eval.policies.local import LocalPolicy
from eval.policies.scripted import GOLD, gold
from eval.replies.calls import Call, Reply, Toolbox, calls_of
from eval.replies.one_call_a_turn import BLOCKS, linear_row
from eval.rollouts.progress import progress_of
from eval.rollouts.reply_journal import Kept, journal_beside, replies_of
from eval.scores.causes import missed, tally
from eval.scores.columns import all_counts, all_rates
from eval.scores.metrics import rates, score_task, table
from eval.scores.stats import detectable_at, effective
from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.json_file import write_json
from synthesis.records import Json
from synthesis.seeds import digest, seeded

HALVES = ("validation", "final")
"""Two halves of a split, for experiments that choose something: on the first, and the table is of the second."""


@dataclass(frozen=True)
class Decision:
    """One call turn of a task: what the policy sees, what it should do, and the critical parameters thereof."""

    prompt: Prompt
    gold: tuple[Call, ...]
    critical: list[dict[str, Json]]
    """Entries {"call": index in the turn, "parameter", "value"}."""
    instead: "tuple[Decision, ...]" = ()
    """The other calls that may come in this turn just as well: parallel ones that the template put in a row."""


@dataclass(frozen=True)
class Task:
    """One row of the SFT dataset as a task."""

    id: str
    meta: Mapping[str, Json]
    request: str
    tools: Toolbox
    decisions: list[Decision]
    closing: Prompt | None = None
    """What the policy sees where the conversation ends in words."""

    @property
    def gold_calls(self) -> list[Call]:
        """All right calls, in order."""
        return [call for decision in self.decisions for call in decision.gold]


def task_of(row: Mapping[str, Json]) -> Task:
    """Cut a row (`messages`, `tools`, `meta`) into its decisions.

    Raises:
        UserError: a critical parameter that points to no call of the row.
    """
    messages, meta, tools = row["messages"], row["meta"], row["tools"]
    starts = [i for i, message in enumerate(messages) if message["role"] == "assistant" and message.get("tool_calls")]
    decisions = [
        Decision(
            Prompt(messages[:start], tools),
            calls_of(messages[start]),
            [entry for entry in meta.get("critical", []) if entry["turn"] == turn],
        )
        for turn, start in enumerate(starts)
    ]
    for entry in meta.get("critical", []):
        if entry["turn"] >= len(decisions) or entry["call"] >= len(decisions[entry["turn"]].gold):
            raise UserError(
                f"dataset row {meta['id']}: meta.critical points to a call that the row does not hold: {entry}"
            )
    decisions = _free_in_order(decisions, meta.get(BLOCKS, []))
    ends_in_words = bool(starts) and messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls")
    closing = Prompt(messages[:-1], tools) if ends_in_words else None
    request = next((message["content"] for message in messages if message["role"] == "user"), "")
    return Task(meta["id"], meta, request, Toolbox(tools), decisions, closing)


def _free_in_order(decisions: Sequence[Decision], blocks: Sequence[int]) -> list[Decision]:
    """Decisions of calls that were parallel, each with those of its turn that come after it and may come before."""
    if sum(blocks) != len(decisions):
        return list(decisions)
    free: list[Decision] = []
    for size in blocks:
        block = decisions[len(free) : len(free) + size]
        free += [replace(decision, instead=tuple(block[at + 1 :])) for at, decision in enumerate(block)]
    return free


def as_answered(decision: Decision, reply: Reply, tools: Toolbox) -> Decision:
    """The decision that the reply fits best: this one, or one that may come in its place."""

    def fit(each: Decision) -> tuple[int, ...]:
        counts = score_task([(each.gold, each.critical, reply)], tools)
        return counts.match, counts.task, counts.icp_equal, counts.tools_correct

    return max((decision, *decision.instead), key=fit)


def half_of(row: Mapping[str, Json]) -> str:
    """The half of its split that a row belongs to, drawn by its calls."""
    calls = [message["tool_calls"] for message in row["messages"] if message.get("tool_calls")]
    return HALVES[int(digest("half", calls), 16) % 2]


def level(meta: Mapping[str, Json]) -> str:
    """How difficult a row's request is: "hard" where it has a label (`synthesis.requests.difficulty`), else "easy"."""
    return "hard" if meta.get("difficulty") else "easy"


def load_tasks(
    dataset: Path, split: str = "test", limit: int | None = None, seed: int = 0, half: str | None = None
) -> list[Task]:
    """The tasks of one split of DATASET/sft; with `limit`, a seeded sample, the same for every model.

    `half` is one of `HALVES`: an experiment chooses on the tasks of "validation" and reports those of "final". Tasks
    that make the same calls are in the same half.

    Raises:
        UserError: no such dataset, split or half, or an empty one.
    """
    return [task_of(row) for row in load_rows(dataset, split, limit, seed, half)]


def conversations(dataset: Path) -> Mapping[str, Iterable[dict[str, Json]]]:
    """The rows of DATASET/sft by split.

    Raises:
        UserError: no such dataset.
    """
    folder = dataset / "sft"
    if not (folder / "dataset_dict.json").is_file():
        raise UserError(
            f"{folder}: no dataset there; expected the folder `dataset` that `rise synth` writes into its run"
        )
    from datasets import load_from_disk

    splits: Mapping[str, Iterable[dict[str, Json]]] = load_from_disk(str(folder))
    return splits


def load_rows(dataset: Path, split: str, limit: int | None, seed: int, half: str | None) -> list[dict[str, Json]]:
    """The rows that `load_tasks` makes tasks of."""
    if half not in (None, *HALVES):
        raise UserError(f"half: expected {' or '.join(HALVES)}, found {half}")
    folder, splits = dataset / "sft", conversations(dataset)
    if split not in splits:
        raise UserError(f"{folder}: no split {split!r}; there are {', '.join(sorted(splits))}")
    rows = [row for row in splits[split] if half in (None, half_of(row))]
    if limit is not None and limit < len(rows):
        rows = [rows[i] for i in sorted(seeded(seed, "limit", split).sample(range(len(rows)), limit))]
    if not rows:
        raise UserError(f"{folder}: nothing to evaluate in split {split!r}")
    return rows


def evaluate(
    model: str | Path,
    dataset: str | Path,
    split: str = "test",
    json_out: str | Path | None = None,
    limit: int | None = None,
    *,
    batch_size: int = 32,
    max_new_tokens: int = 256,
    seed: int = 0,
    half: str | None = None,
    policy: Policy | None = None,
) -> dict[str, Any]:
    """Evaluate a model on the decision turns of a dataset's split, and write the result file.

    Args:
        model: a model folder, an adapter folder, a Hub id, `URL#MODEL`, or `policy:NAME`.
        dataset: the folder `dataset` of a run.
        json_out: where to write the result, as one JSON object; written whole or not at all. Meanwhile each reply is
            kept beside it, and the same call again asks only for what is missing.
        limit: evaluate only that many tasks, a seeded sample.
        half: evaluate only the tasks of one half (`load_tasks`).
        policy: an already loaded policy, in place of `model`.

    Returns:
        {"model", "dataset", "split", "n_tasks", "metrics", "problems", "by_pattern", "by_difficulty", "causes",
        "tasks", "seconds", ...}; an entry of "tasks" holds the request, and for each turn the gold and predicted calls,
        the reply, its problem and the missed parameters, and in "counts" what `eval.scores.metrics.rates` and
        `eval.scores.compare.compare` need.

    Raises:
        UserError: a model or dataset that can't be loaded.
    """
    rows = load_rows(Path(dataset), split, limit, seed, half)
    policy = policy or policy_for(model, rows, batch_size, max_new_tokens)
    # A template with one call a turn gets its tasks as it was trained, parallel calls one after the other.
    rows = rows if policy.parallel else [linear_row(row) for row in rows]
    _refuse_short_limit(policy, rows)
    tasks = [task_of(row) for row in rows]
    start = time.monotonic()
    with journal_beside(Path(json_out) if json_out is not None else None) as journal:
        replies = answer(policy, tasks, max_new_tokens, journal)
    entries = [_entry(task, turns, end) for task, (turns, end) in zip(tasks, replies, strict=True)]
    turns = [turn for entry in entries for turn in entry["turns"]]
    result = {
        "model": str(model),
        "dataset": str(dataset),
        "split": split,
        "half": half,
        "n_tasks": len(tasks),
        "n_turns": len(turns),
        "max_new_tokens": max_new_tokens,
        **summary(entries, seed),
        "power": power(entries),
        "missing": [],
        "engine": engine(policy),
        "problems": {
            "without_readable_call": sum(bool(turn["problem"]) for turn in turns),
            "cut_off_at_token_limit": sum(turn["truncated"] for turn in turns),
        },
        "causes": tally(entries),
        "tasks": entries,
        "seconds": round(time.monotonic() - start, 2),
    }
    if json_out is not None:
        write_json(Path(json_out), result, indent=1, sort_keys=True)
    return result


def _refuse_short_limit(policy: Policy, rows: Sequence[Mapping[str, Json]]) -> None:
    """Refuse a limit at which no model could give the right reply to some turn: that turn's score would say nothing."""
    if not isinstance(policy, LocalPolicy):
        return
    longest = 0
    for row in rows:
        messages = row["messages"]
        turns = [
            i for i, message in enumerate(messages) if message["role"] == "assistant" and message.get("tool_calls")
        ]
        longest = max([longest, *(policy.tokens_of(messages[i], Prompt(messages[:i], row["tools"])) for i in turns)])
    if longest > policy.max_new_tokens:
        raise UserError(
            f"--max-new-tokens {policy.max_new_tokens}: expected {longest} at least, as many tokens as the right reply "
            "to one of the turns has"
        )


def policy_for(
    model: str | Path,
    rows: Sequence[Mapping[str, Json]],
    batch_size: int,
    max_new_tokens: int,
    temperature: float = 0.0,
) -> Policy:
    """The policy that `model` names; `policy:gold` knows the answers of the rows."""
    if str(model) == GOLD:
        return gold(_answers(rows))
    return load_policy(model, batch_size, max_new_tokens, temperature)


def summary(entries: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The rates of a result file, over all its tasks and by kind of request."""
    return {
        "metrics": all_rates(entries, seed),
        "by_pattern": {name: rates(group, seed) for name, group in grouped(entries, "pattern").items()},
        "by_difficulty": {name: rates(group, seed) for name, group in grouped(entries, "difficulty").items()},
    }


def power(entries: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What a comparison on these tasks can see: how many independent tasks they are worth by `acc_intent`, and the
    difference to another model that is found in four of five tries (`eval.scores.stats.detectable_at`)."""
    gathered = table(entries, ["intent"])
    worth = effective(gathered.runs[0][:, 0], gathered.clusters)
    return {"tasks": round(worth, 1), "detectable": round(detectable_at(worth), 4)}


def _answers(rows: Sequence[Mapping[str, Json]]) -> Iterator[tuple[Prompt, Sequence[Call]]]:
    """What is right, prompt by prompt."""
    for task in map(task_of, rows):
        yield from ((decision.prompt, decision.gold) for decision in task.decisions)
        if task.closing is not None:
            yield task.closing, ()


def answer(
    policy: Policy, tasks: Sequence[Task], longest: int = 256, journal: Journal[Kept] | None = None
) -> list[tuple[list[Reply], Reply | None]]:
    """The policy's replies by task: those to its turns, and that to its end; shows progress on standard error."""
    prompts = [decision.prompt for task in tasks for decision in task.decisions]
    prompts += [task.closing for task in tasks if task.closing is not None]
    with progress_of(f"evaluating {Path(policy.name).name or policy.name}", len(prompts), "turns") as advance:
        found = replies_of(policy, prompts, longest, journal, advance)
    turns, ends = iter(found), iter(found[sum(len(task.decisions) for task in tasks) :])
    return [([next(turns) for _ in task.decisions], next(ends) if task.closing else None) for task in tasks]


def _entry(task: Task, replies: Sequence[Reply], closing: Reply | None) -> dict[str, Any]:
    answered = [(as_answered(d, reply, task.tools), reply) for d, reply in zip(task.decisions, replies, strict=True)]
    turns = [(d.gold, d.critical, reply) for d, reply in answered]
    end = {"reply": closing.text, "predicted": [call.as_dict() for call in closing.calls]} if closing else None
    return {
        **outline(task),
        "turns": [_turn(d, reply, task.tools) for d, reply in answered],
        "closing": end,
        "counts": all_counts(turns, task.tools, closing),
    }


def outline(task: Task) -> dict[str, Any]:
    """What a result file says of every task, however it was played."""
    return {
        "id": task.id,
        "trajectory_id": task.meta.get("trajectory_id", task.id),
        "pattern": task.meta.get("pattern", ""),
        "difficulty": level(task.meta),
        "servers": task.meta.get("servers", []),
        "request": task.request,
    }


def _turn(decision: Decision, reply: Reply, tools: Toolbox) -> dict[str, Any]:
    return {
        "verdict": verdict(decision, reply, tools),
        "gold": [call.as_dict() for call in decision.gold],
        "critical": [{key: entry[key] for key in ("call", "parameter", "value")} for entry in decision.critical],
        "missed": missed(decision.prompt.messages, decision.gold, decision.critical, reply, tools),
        "predicted": [call.as_dict() for call in reply.calls],
        "reply": reply.text,
        "problem": reply.problem,
        "truncated": reply.truncated,
    }


def verdict(decision: Decision, reply: Reply, tools: Toolbox) -> str:
    """One word on one turn.

    "exact": the recorded calls and nothing else; "equivalent": calls that do the same and nothing else; "deviates";
    "unreadable": no call could be read.
    """
    if reply.problem:
        return "unreadable"
    counts = score_task([(decision.gold, decision.critical, reply)], tools)
    if counts.match:
        return "exact"
    return "equivalent" if counts.task and counts.intent else "deviates"


def grouped(entries: Sequence[dict[str, Any]], field: str) -> dict[str, list[dict[str, Any]]]:
    """The entries of a result file by what they say in `field`, "pattern" or "difficulty"."""
    names = sorted({entry[field] for entry in entries})
    return {name: [entry for entry in entries if entry[field] == name] for name in names}
