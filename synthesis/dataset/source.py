"""What a dataset is made from: samples with their trajectories, tools and negatives; and what a row of it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from synthesis.dataset.prompt_tools import tool_lists
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

    @cached_property
    def prompt_tools(self) -> dict[str, list[Row]]:
        """The tools in each sample's prompt, in the OpenAI format, by sample id.

        Tools that a negative calls by mistake have to be on offer too, even where the prompt gets longer by them.
        Held-out tools stand only in prompts of samples that need one; so none is ever seen in train.
        """
        apart = {sample.id for sample in self.samples if self.holds_out(sample)}
        known = {name: tool for name, tool in self.tools.items() if name not in self.held_out}
        found: dict[str, list[str]] = {}
        for ids_are_apart, offered in ((False, known), (True, self.tools)):
            wanted = {
                sample.id: [name for name in self._wanted(sample) if name in offered]
                for sample in self.samples
                if (sample.id in apart) is ids_are_apart
            }
            found |= tool_lists(wanted, offered, self.tools_per_prompt, self.seed)
        return {sample: [self.tools[name].spec() for name in names] for sample, names in found.items()}

    def _wanted(self, sample: Sample) -> list[str]:
        mutations = [m for negative in self.negatives.get(sample.id, ()) for m in negative.mutations]
        mistaken = [mutation.after for mutation in mutations if mutation.kind == "sibling_tool"]
        return list(dict.fromkeys([*self.needed(sample), *mistaken]))

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
