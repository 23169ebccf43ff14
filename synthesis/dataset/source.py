"""What a dataset is made from: samples with their trajectories, tools and negatives; and what a row of it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthesis.records import Negative, Sample, Tool, Trajectory

Row = dict[str, Any]
"""A row, a message in it, or a call: as JSON."""


@dataclass(frozen=True)
class Source:
    """What the rows are made from: `tools` by full name, `trajectories` by id, `negatives` by sample id.

    `held_out` are the full names of tools that train must not know (`synthesis.dataset.holdout`).
    """

    tools: Mapping[str, Tool]
    trajectories: Mapping[str, Trajectory]
    samples: Sequence[Sample]
    negatives: Mapping[str, Sequence[Negative]]
    seed: int = 0
    tools_per_prompt: int = 4
    held_out: frozenset[str] = frozenset()

    def needed(self, sample: Sample) -> list[str]:
        """Tools that the task needs, each once: those of the steps, and both branches of a condition."""
        trajectory = self.trajectories[sample.trajectory_id]
        names = [step.tool for step in trajectory.steps]
        if trajectory.condition is not None:
            names += [trajectory.condition.then_tool, trajectory.condition.else_tool]
        return list(dict.fromkeys(names))

    def holds_out(self, sample: Sample) -> bool:
        """Whether the sample needs a held-out tool, and so belongs to test."""
        return not self.held_out.isdisjoint(self.needed(sample))
