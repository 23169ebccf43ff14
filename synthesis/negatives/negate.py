"""Candidates for negatives: every decision turn of every sample, with the deviations that may be put into it."""

from collections.abc import Mapping, Sequence

from synthesis.authors.base import Author
from synthesis.negatives.added_kinds import proposer
from synthesis.negatives.distances import Distance, meaning, surface
from synthesis.negatives.mutations import Added, negatives, paper_only
from synthesis.progress import Progress, silent
from synthesis.records import Negative, Primitive, Sample, Tool, Trajectory
from synthesis.run import Run
from synthesis.surprises import Surprised, surprise, warn
from synthesis.workers import ahead

SPARE = 2
"""Spare candidates for one negative, to take the place of those that do the same as the right call, or err."""


async def negatives_stage(run: Run) -> None:
    """Make candidates for the negatives of all samples; they are no records yet: `executions_stage` chooses."""
    config, tools = run.config, run.tools
    calls = run.journal("primitives", Primitive)
    with run.stage("negatives") as progress:
        run.negatives = await run.aside(
            lambda: negate(
                run.samples,
                run.trajectories_by_id,
                tools,
                run.author,
                count=config.negatives,
                seed=config.seed,
                added=paper_only if config.kinds == "paper" else proposer(tools, calls, config.seed),
                spare=SPARE * config.negatives,
                distance=meaning if config.embeddings else surface,
                progress=progress,
                surprised=run.surprises.append,
            )
        )


def negate(
    samples: Sequence[Sample],
    trajectories: Mapping[str, Trajectory],
    tools: dict[str, Tool],
    author: Author,
    *,
    count: int,
    seed: int,
    added: Added = paper_only,
    spare: int = 0,
    distance: Distance = surface,
    progress: Progress = silent,
    surprised: Surprised = warn,
) -> dict[str, list[Negative]]:
    """Make at most `count` negatives, and `spare` more, for each decision turn of each sample, by sample id.

    They are a pure function of the sample, so a resumed run makes them again; what was executed decides which are kept
    (`synthesis.negatives.executions`).
    """

    def mutate(sample: Sample) -> list[Negative]:
        calls = trajectories[sample.trajectory_id]
        try:
            return negatives(sample, calls, tools, author, count, seed, added, spare, distance)
        except Exception as error:
            surprised(f"no negatives of request {sample.id}: {surprise(error)}")
            return []

    made: dict[str, list[Negative]] = {}
    for number, (sample, found) in enumerate(ahead(mutate, samples, author.workers), start=1):
        made[sample.id] = found
        progress(number, len(samples), sample.pattern)
    return made
