"""The tools in a prompt: those that the task needs among others that it does not."""

from synthesis.dataset.source import Row, Source
from synthesis.records import Sample
from synthesis.seeds import seeded

NEAR_SHARE = 0.5
"""Share of the distractor tools that come from the gold tools' own servers."""


def candidate_tools(source: Source, sample: Sample) -> list[Row]:
    """The tools in the prompt: all that the task needs, then near siblings and others up to `tools_per_prompt`.

    Tools that a negative calls by mistake have to be on offer too, even where the prompt gets longer by them.
    Held-out tools stand only in prompts of samples that need one; so none is ever seen in train.
    """
    names = source.needed(sample)
    hidden = frozenset() if source.holds_out(sample) else source.held_out
    offered = {name: tool for name, tool in source.tools.items() if name not in hidden}
    rng = seeded(source.seed, "tools", sample.id)
    servers = {source.tools[name].server for name in names}
    names += [name for name in _mistaken(source, sample) if name in offered and name not in names]
    near = sorted(name for name, tool in offered.items() if tool.server in servers and name not in names)
    far = sorted(name for name, tool in offered.items() if tool.server not in servers)
    while len(names) < source.tools_per_prompt and (near or far):
        pool = near if near and (not far or rng.random() < NEAR_SHARE) else far
        names.append(pool.pop(rng.randrange(len(pool))))
    rng.shuffle(names)
    return [source.tools[name].spec() for name in names]


def _mistaken(source: Source, sample: Sample) -> list[str]:
    """The tools that the sample's negatives call instead of the right ones, each once."""
    mutations = [m for negative in source.negatives.get(sample.id, ()) for m in negative.mutations]
    return list(dict.fromkeys(mutation.after for mutation in mutations if mutation.kind == "sibling_tool"))
