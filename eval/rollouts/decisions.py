"""The step-wise rollout: every call turn of every test task is decided anew, given the history as it was recorded.

This is how an agent runs, one turn at a time, with the difference that the history is gold's, with the real results
(GTA's step-by-step mode, teacher forcing): an early error does not spoil later turns, and no server is needed. The
closing answer in words is not decoded.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.policies.base import Policy, Progress, Prompt
from eval.policies.load import load_policy
from eval.replies.calls import Call, Reply, Toolbox, calls_of
from eval.replies.one_call_a_turn import linear_row
from eval.scores.causes import missed, tally
from eval.scores.metrics import rates, score_task
from synthesis.errors import UserError
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


@dataclass(frozen=True)
class Task:
    """One row of the SFT dataset as a task."""

    id: str
    meta: Mapping[str, Json]
    request: str
    tools: Toolbox
    decisions: list[Decision]


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
    request = next((message["content"] for message in messages if message["role"] == "user"), "")
    return Task(meta["id"], meta, request, Toolbox(tools), decisions)


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
    return [task_of(row) for row in _load_rows(dataset, split, limit, seed, half)]


def _load_rows(dataset: Path, split: str, limit: int | None, seed: int, half: str | None) -> list[dict[str, Json]]:
    if half not in (None, *HALVES):
        raise UserError(f"half: expected {' or '.join(HALVES)}, found {half}")
    folder = dataset / "sft"
    if not (folder / "dataset_dict.json").is_file():
        raise UserError(
            f"{folder}: no dataset there; expected the folder `dataset` that `rise synth` writes into its run"
        )
    from datasets import load_from_disk

    splits = load_from_disk(str(folder))
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
        model: a model folder, an adapter folder, a Hub id, or `URL#MODEL`.
        dataset: the folder `dataset` of a run.
        json_out: where to write the result, as one JSON object; written whole or not at all.
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
    rows = _load_rows(Path(dataset), split, limit, seed, half)
    policy = policy or load_policy(model, batch_size, max_new_tokens)
    # A template with one call a turn gets its tasks as it was trained, parallel calls one after the other.
    tasks = [task_of(row if policy.parallel else linear_row(row)) for row in rows]
    start = time.monotonic()
    replies = answer(policy, tasks)
    entries = [_entry(task, turns) for task, turns in zip(tasks, replies, strict=True)]
    turns = [turn for entry in entries for turn in entry["turns"]]
    result = {
        "model": str(model),
        "dataset": str(dataset),
        "split": split,
        "half": half,
        "n_tasks": len(tasks),
        "n_turns": len(turns),
        "max_new_tokens": max_new_tokens,
        "metrics": rates(entries, seed),
        "problems": {
            "without_readable_call": sum(bool(turn["problem"]) for turn in turns),
            "cut_off_at_token_limit": sum(turn["truncated"] for turn in turns),
        },
        "by_pattern": {name: rates(group, seed) for name, group in grouped(entries, "pattern").items()},
        "by_difficulty": {name: rates(group, seed) for name, group in grouped(entries, "difficulty").items()},
        "causes": tally(entries),
        "tasks": entries,
        "seconds": round(time.monotonic() - start, 2),
    }
    if json_out is not None:
        write_json(Path(json_out), result, indent=1, sort_keys=True)
    return result


def answer(policy: Policy, tasks: Sequence[Task]) -> list[list[Reply]]:
    """The policy's replies, by task and turn; shows progress on standard error."""
    prompts = [decision.prompt for task in tasks for decision in task.decisions]
    with _progress(f"evaluating {Path(policy.name).name or policy.name}", len(prompts)) as advance:
        replies = iter(policy.reply(prompts, advance))
    return [[next(replies) for _ in task.decisions] for task in tasks]


def _entry(task: Task, replies: Sequence[Reply]) -> dict[str, Any]:
    turns = [(d.gold, d.critical, reply) for d, reply in zip(task.decisions, replies, strict=True)]
    return {
        "id": task.id,
        "trajectory_id": task.meta.get("trajectory_id", task.id),
        "pattern": task.meta.get("pattern", ""),
        "difficulty": level(task.meta),
        "servers": task.meta.get("servers", []),
        "request": task.request,
        "turns": [_turn(d, reply, task.tools) for d, reply in zip(task.decisions, replies, strict=True)],
        "counts": score_task(turns, task.tools).as_dict(),
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


@contextmanager
def _progress(what: str, total: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_progress(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        turns = bar.add_task(what, total=total)
        yield lambda count: bar.advance(turns, count)


def _plain_progress(what: str, total: int) -> Progress:
    done, due = 0, 0.0

    def advance(count: int) -> None:
        nonlocal done, due
        done += count
        if count and (time.monotonic() >= due or done == total):
            due = time.monotonic() + 10
            print(f"{what}: {done} of {total} turns", file=sys.stderr, flush=True)

    return advance
