"""The dataset that a name stands for: a run's own, or `BENCHMARK:FOLDER`."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from eval.benchmarks import ste, toolalpaca, toolbench
from eval.replies.calls import calls_of
from eval.rollouts.decisions import conversations
from eval.scores.quality import Example
from synthesis.errors import UserError
from synthesis.records import Json
from synthesis.seeds import seeded

BENCHMARKS: dict[str, Callable[[Path], Iterator[Example]]] = {
    "toolbench": toolbench.load,
    "toolalpaca": toolalpaca.load,
    "ste": ste.load,
}


def examples(name: str, limit: int | None = None, seed: int = 0) -> list[Example]:
    """The examples of `name`; with `limit`, a seeded sample of them in their order.

    Raises:
        UserError: no such benchmark, or nothing of it there.
    """
    kind, _, folder = name.partition(":")
    if kind in BENCHMARKS:
        found = list(BENCHMARKS[kind](Path(folder)))
    elif Path(name).is_dir():
        found = [_row(row) for split in conversations(Path(name)).values() for row in split]
    else:
        known = ", ".join(f"{each}:FOLDER" for each in BENCHMARKS)
        raise UserError(f"{name}: expected the folder `dataset` of a run, or one of {known}")
    if limit is None or limit >= len(found):
        return found
    return [found[at] for at in sorted(seeded(seed, "quality", name).sample(range(len(found)), limit))]


def _row(row: Mapping[str, Json]) -> Example:
    messages = row["messages"]
    return Example(
        id=row["meta"]["id"],
        request="\n".join(message["content"] for message in messages if message["role"] == "user"),
        tools=row["tools"],
        calls=[call for message in messages for call in calls_of(message)],
        results=[message["content"] for message in messages if message["role"] == "tool"],
        response=messages[-1]["content"] if messages[-1]["role"] == "assistant" else None,
    )
