"""The six metrics of RISE (section 4.3), and three that keep them honest.

A task is one row of the SFT test split; each of its call turns is decided given the recorded history (GTA's
step-by-step mode). The paper's: `acc_task`, `acc_call`, `tool_precision`, `tool_recall`, `acc_icp`, `acc_intent`; it
names only the first and the last, the other names are ours. Ours: `acc_icp_all` and `trajectory_match`, since `acc_icp`
looks only at calls whose tool is right and so can rise while everything else falls; and `stops`, since the others do
not see a model that calls on when all is done.

A reply from which no call can be read counts as one invalid predicted call (our reading; in GTA such a step is an
error, too), in `acc_call` and `tool_precision` alike: staying silent must not pay.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.replies.calls import NO_CALL, Call, Reply, Toolbox, alike, exact
from eval.scores.stats import Array, effective, ratio_interval, wilson
from synthesis.errors import UserError
from synthesis.records import Json


class Metric(NamedTuple):
    """A rate: the sum of one count over the sum of another, or over the number of tasks."""

    name: str
    label: str
    hits: str
    total: str
    meaning: str

    @property
    def per_task(self) -> bool:
        """Whether each task gives one yes or no."""
        return self.total == "tasks"


METRICS = (
    Metric("acc_task", "Task", "task", "tasks", "tasks in which every required call was made; extra calls allowed"),
    Metric(
        "acc_call", "Valid call", "calls_valid", "calls_predicted", "predicted calls that the tool's schema accepts"
    ),
    Metric(
        "tool_precision", "Tool precision", "tools_correct", "calls_predicted", "predicted tools that were required"
    ),
    Metric("tool_recall", "Tool recall", "tools_correct", "tools_gold", "required tools that were predicted"),
    Metric(
        "acc_icp", "ICP, right tool", "icp_equal", "icp_aligned", "critical parameters right, where the tool is right"
    ),
    Metric("acc_icp_all", "ICP, all", "icp_equal", "icp_gold", "critical parameters right, of all that were asked for"),
    Metric(
        "acc_intent", "Intent", "intent", "tasks", "tasks with exactly the right tools and every critical parameter"
    ),
    Metric("trajectory_match", "Exact match", "match", "tasks", "tasks with exactly the recorded calls, nothing else"),
    Metric(
        "stops", "Stops", "stopped", "closings", "tasks in which the reply to the last result holds no further call"
    ),
)


@dataclass
class Counts:
    """What one task contributes to the metrics. The three flags are 0 or 1."""

    calls_valid: int = 0
    calls_predicted: int = 0
    tools_correct: int = 0
    tools_gold: int = 0
    icp_equal: int = 0
    icp_aligned: int = 0
    icp_gold: int = 0
    task: int = 1
    intent: int = 1
    match: int = 1
    tasks: int = 1
    closings: int = 0
    """Whether the task ends with an answer in words, and `stopped` whether the reply there held no call."""
    stopped: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts as the result file keeps them."""
        return asdict(self)


FIELDS = [field.name for field in fields(Counts)]


def score_task(
    turns: Sequence[tuple[Sequence[Call], Sequence[Mapping[str, Json]], Reply]],
    tools: Toolbox,
    closing: Reply | None = None,
    *,
    normalised: bool = False,
) -> Counts:
    """Score the call turns of one task, and the reply to its end.

    Args:
        turns: for each call turn the gold calls, the critical parameters ("call" = index in the turn, "parameter",
            "value") and the reply.
        tools: the tools that the prompt offers.
        closing: what was replied where the recorded conversation ends in words; None where it does not.
        normalised: compare values by what they mean, in place of the paper's rule.
    """
    counts = Counts()
    for gold, critical, reply in turns:
        _score_turn(counts, gold, critical, reply, tools, normalised)
    if closing is not None:
        counts.closings, counts.stopped = 1, int(closing.problem == NO_CALL)
    return counts


def _score_turn(
    counts: Counts,
    gold: Sequence[Call],
    critical: Sequence[Mapping[str, Json]],
    reply: Reply,
    tools: Toolbox,
    normalised: bool,
) -> None:
    predicted = reply.calls
    same = tools.same if normalised else tools.equivalent
    aligned = align(gold, predicted, critical, tools, normalised)
    asked, answered = Counter(call.name for call in gold), Counter(call.name for call in predicted)
    verdicts = [
        met(entry, predicted[aligned[entry["call"]]], tools, normalised)
        for entry in critical
        if entry["call"] in aligned
    ]
    counts.calls_predicted += len(predicted) or 1
    counts.calls_valid += sum(map(tools.valid, predicted))
    counts.tools_gold += len(gold)
    counts.tools_correct += (asked & answered).total()
    counts.icp_gold += len(critical)
    counts.icp_aligned += len(verdicts)
    counts.icp_equal += sum(verdicts)
    counts.task &= all(i in aligned and same(call, predicted[aligned[i]]) for i, call in enumerate(gold))
    counts.intent &= asked == answered and len(verdicts) == len(critical) and all(verdicts)
    counts.match &= _matches(gold, predicted)


def align(
    gold: Sequence[Call],
    predicted: Sequence[Call],
    critical: Sequence[Mapping[str, Json]],
    tools: Toolbox,
    normalised: bool = False,
) -> dict[int, int]:
    """Which predicted call answers which gold call of a turn (index to index), each used once.

    Calls of equal name are assigned so that first the most calls are equivalent, then the most critical parameters
    and then the most arguments agree: the order of parallel calls is the model's to choose.
    """
    from scipy.optimize import linear_sum_assignment

    aligned: dict[int, int] = {}
    for name in dict.fromkeys(call.name for call in gold):
        rows = [i for i, call in enumerate(gold) if call.name == name]
        columns = [j for j, call in enumerate(predicted) if call.name == name]
        scores = [[_agreement(i, gold[i], predicted[j], critical, tools, normalised) for j in columns] for i in rows]
        if columns:
            chosen = zip(*linear_sum_assignment(np.array(scores), maximize=True), strict=True)
            aligned.update((rows[row], columns[column]) for row, column in chosen)
    return aligned


def _agreement(
    index: int,
    gold: Call,
    predicted: Call,
    critical: Sequence[Mapping[str, Json]],
    tools: Toolbox,
    normalised: bool,
) -> int:
    right = sum(met(entry, predicted, tools, normalised) for entry in critical if entry["call"] == index)
    same = sum(key in predicted.arguments and alike(v, predicted.arguments[key]) for key, v in gold.arguments.items())
    whole = tools.same if normalised else tools.equivalent
    return 1_000_000 * whole(gold, predicted) + 1_000 * right + same


def met(entry: Mapping[str, Json], predicted: Call, tools: Toolbox, normalised: bool = False) -> bool:
    """Whether a call has the value of a critical parameter, given or by the schema's default."""
    given = tools.filled(predicted).get(entry["parameter"])
    if normalised:
        return tools.same_value(predicted, entry["parameter"], entry["value"], given)
    return alike(entry["value"], given)


def _matches(gold: Sequence[Call], predicted: Sequence[Call]) -> bool:
    left = list(predicted)
    for call in gold:
        twin = next((i for i, c in enumerate(left) if c.name == call.name and exact(c.arguments, call.arguments)), None)
        if twin is None:
            return False
        del left[twin]
    return not left


class Table(NamedTuple):
    """Counts of an arm, `runs` [seeds, tasks, len(names)]; the tasks are in the order of `ids`.

    `clusters` [tasks] numbers the trajectories that the tasks' requests are of; `names` are the counts'.
    """

    ids: list[str]
    runs: Array
    clusters: NDArray[np.int64]
    names: Sequence[str]

    @property
    def clustered(self) -> Array:
        """The counts summed over the tasks of a trajectory, [seeds, clusters, len(names)]."""
        summed = np.zeros((len(self.runs), int(self.clusters.max(initial=-1)) + 1, self.runs.shape[2]))
        np.add.at(summed.swapaxes(0, 1), self.clusters, self.runs.swapaxes(0, 1))
        return summed

    @property
    def counts(self) -> Array:
        """Sums over the seeds, [tasks, len(names)]."""
        summed: Array = self.runs.sum(axis=0)
        return summed

    @property
    def repeats(self) -> int:
        """How many times each task occurs, that is, the number of seeds pooled."""
        return len(self.runs)

    def columns(self, metric: Metric) -> list[int]:
        """Columns of the metric's hits and total."""
        return [self.names.index(metric.hits), self.names.index(metric.total)]


def table(tasks: Sequence[Mapping[str, Any]], names: Sequence[str] = FIELDS) -> Table:
    """Gather the `counts` of tasks of a result file, or of several results with different seeds, by task id.

    Raises:
        UserError: the results are of different tasks.
    """
    found: dict[str, list[list[float]]] = {}
    trajectories = {task["id"]: task.get("trajectory_id", task["id"]) for task in tasks}
    for task in tasks:
        found.setdefault(task["id"], []).append([task["counts"][name] for name in names])
    if len({len(rows) for rows in found.values()}) > 1:
        raise UserError(
            "the seeds of an arm were evaluated on different tasks; evaluate all on the same split and limit"
        )
    ids = sorted(found)
    runs = np.array([found[i] for i in ids], dtype=np.float64) if ids else np.zeros((0, 1, len(names)))
    numbers = np.unique([trajectories[i] for i in ids], return_inverse=True)[1] if ids else np.zeros(0, dtype=np.int64)
    return Table(ids, runs.swapaxes(0, 1), numbers, names)


def rates(tasks: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, dict[str, float]]:
    """Every metric over `tasks` (entries of a result file; those of several seeds are pooled).

    Returns:
        name -> {"value", "low", "high", "n"}: n is the number of tasks, calls or parameters that the rate divides by.
        Task-level rates have Wilson's interval for as many tasks as their trajectories are worth (`stats.effective`);
        all others the bootstrap over trajectories, and rates pooled over seeds one over trajectories and seeds. Where
        there is nothing to divide by, the value is 0 and the interval is (0, 1).
    """
    return rates_of(METRICS, table(tasks), seed)


def rates_of(metrics: Sequence[Metric], gathered: Table, seed: int = 0) -> dict[str, dict[str, float]]:
    """`rates` of these metrics."""
    clustered, found = gathered.clustered, {}
    for metric in metrics:
        columns = gathered.columns(metric)
        hits, total = (round(x) for x in gathered.counts[:, columns].sum(axis=0))
        if metric.per_task and gathered.repeats == 1:
            size = effective(gathered.runs[0][:, columns[0]], gathered.clusters)
            low, high = wilson(hits / max(total, 1) * size, size)
        else:
            low, high = ratio_interval(clustered[:, :, columns], seed)
        found[metric.name] = {"value": hits / total if total else 0.0, "low": low, "high": high, "n": total}
    return found
