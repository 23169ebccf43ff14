"""The tools in a prompt: those that the task needs among others that it does not.

Requests share their lists of tools where one fits several, as the requests to one agent do. What they share is the
beginning of their prompts, which training computes once for a batch (`shared_prefix`).
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from synthesis.records import Tool
from synthesis.seeds import digest, seeded

NEAR_SHARE = 0.5
"""Share of the distractor tools that come from the gold tools' own servers."""


def tool_lists(
    wanted: Mapping[str, Sequence[str]], offered: Mapping[str, Tool], tools_per_prompt: int, seed: int
) -> dict[str, list[str]]:
    """Choose the tools in each sample's prompt: what it wants, then near siblings and others up to `tools_per_prompt`.

    The samples that want most come first. Each takes a list, by chance one of those that are there, that holds all it
    wants and is no longer than its own would be; where there is none, its own is made.

    Args:
        wanted: full names of the tools that have to be in a sample's prompt, by sample id.
        offered: the tools that may stand beside them, by full name; those wanted are among them.

    Returns:
        Full names in the order of the prompt, by sample id.
    """
    made: dict[str, list[list[str]]] = defaultdict(list)
    found: dict[str, list[str]] = {}
    for sample in sorted(wanted, key=lambda sample: (-len(wanted[sample]), digest(seed, sample))):
        names, rng = wanted[sample], seeded(seed, "tools", sample)
        size = max(len(names), tools_per_prompt)
        with_rarest = min((made[name] for name in names), key=len)
        fitting = [made for made in with_rarest if len(made) <= size and set(names) <= set(made)]
        if fitting:
            found[sample] = rng.choice(fitting)
            continue
        found[sample] = _filled(names, offered, tools_per_prompt, rng)
        for name in found[sample]:
            made[name].append(found[sample])
    return found


def _filled(wanted: Sequence[str], offered: Mapping[str, Tool], tools_per_prompt: int, rng: random.Random) -> list[str]:
    names = list(wanted)
    servers = {offered[name].server for name in names}
    near = sorted(name for name, tool in offered.items() if tool.server in servers and name not in names)
    far = sorted(name for name, tool in offered.items() if tool.server not in servers)
    while len(names) < tools_per_prompt and (near or far):
        pool = near if near and (not far or rng.random() < NEAR_SHARE) else far
        names.append(pool.pop(rng.randrange(len(pool))))
    rng.shuffle(names)
    return names
