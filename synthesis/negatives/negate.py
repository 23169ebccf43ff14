"""Candidates for negatives: every decision turn of every sample, with the deviations that may be put into it."""

from collections.abc import Mapping, Sequence

from synthesis.authors.base import Author
from synthesis.calls.primitives import Progress
from synthesis.negatives.complexity import Distance, surface
from synthesis.negatives.mutations import Further, negatives, paper_only
from synthesis.records import Negative, Sample, Tool, Trajectory
from synthesis.workers import ahead


def negate(
    samples: Sequence[Sample],
    trajectories: Mapping[str, Trajectory],
    tools: dict[str, Tool],
    author: Author,
    *,
    count: int,
    seed: int,
    further: Further = paper_only,
    spare: int = 0,
    distance: Distance = surface,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, list[Negative]]:
    """Make at most `count` negatives, and `spare` more, for each decision turn of each sample, by sample id.

    They are a pure function of the sample, so a resumed run makes them again; what was executed decides which are kept
    (`synthesis.negatives.executions`).
    """

    def mutate(sample: Sample) -> list[Negative]:
        return negatives(
            sample, trajectories[sample.trajectory_id], tools, author, count, seed, further, spare, distance
        )

    made: dict[str, list[Negative]] = {}
    for number, (sample, found) in enumerate(ahead(mutate, samples, author.workers), start=1):
        made[sample.id] = found
        progress(number, len(samples), sample.pattern)
    return made
