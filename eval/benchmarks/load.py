"""The benchmarks by name, and the dataset that a name stands for: a run's own, or `BENCHMARK:FOLDER`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from eval.benchmarks import acebench, bfcl, livemcpbench, ste, toolalpaca, toolbench
from eval.benchmarks.cases import Case, Loaded, Score
from eval.policies.base import Prompt
from eval.replies.calls import Call, Reply, calls_of
from eval.rollouts.decisions import conversations
from eval.scores.quality import Example
from synthesis.errors import UserError
from synthesis.records import Json
from synthesis.seeds import seeded


class Benchmark(Protocol):
    """The four functions of a benchmark's file."""

    def load(self, path: Path) -> Loaded:
        """Its cases in a folder."""
        ...

    def prompt(self, case: Case) -> Prompt:
        """What a case asks."""
        ...

    def parse(self, case: Case, reply: Reply) -> Sequence[Call]:
        """The calls of a reply."""
        ...

    def score(self, case: Case, reply: Reply) -> Score:
        """Whether a reply is right."""
        ...


SCORED: dict[str, Benchmark] = {"bfcl": bfcl, "acebench": acebench, "ste": ste}
READ: dict[str, Callable[[Path], Iterable[Example]]] = {
    "toolbench": toolbench.load,
    "toolalpaca": toolalpaca.load,
    "livemcpbench": livemcpbench.load,
}
"""Benchmarks that only a judge can score, so that they serve as data alone."""


def examples(name: str, limit: int | None = None, seed: int = 0) -> list[Example]:
    """The examples of `name`; with `limit`, a seeded sample of them in their order.

    Raises:
        UserError: no such benchmark, or nothing of it there.
    """
    kind, _, folder = name.partition(":")
    if kind in READ:
        found = list(READ[kind](Path(folder)))
    elif kind in SCORED:
        found = [_example(SCORED[kind], case) for case in SCORED[kind].load(Path(folder)).cases]
    elif Path(name).is_dir():
        found = [_row(row) for split in conversations(Path(name)).values() for row in split]
    else:
        known = ", ".join(f"{each}:FOLDER" for each in (*READ, *SCORED))
        raise UserError(f"{name}: expected the folder `dataset` of a run, or one of {known}")
    if limit is None or limit >= len(found):
        return found
    return [found[at] for at in sorted(seeded(seed, "quality", name).sample(range(len(found)), limit))]


def _example(benchmark: Benchmark, case: Case) -> Example:
    """A case as data: what users said, the tools as the model would see them, and a right reply."""
    asked = benchmark.prompt(case)
    request = "\n".join(str(message["content"]) for message in asked.messages if message["role"] == "user")
    return Example(case.id, request, asked.tools, case.right.calls)


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
