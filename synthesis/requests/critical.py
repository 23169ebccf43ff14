"""Intent-aware critical parameters: the arguments whose values come from what the user asked for (RISE, Eq. 1 and 2).

Two verdicts are kept on each: the author's, who wrote the request and says which words a value comes from, and a
rule's, that the value (or a normal form of it) stands in those words. A parameter counts as critical if both agree.
"""

import re

from synthesis.authors.base import Draft
from synthesis.records import CriticalParameter, Json, Tool, Trajectory
from synthesis.schemas import schema_of
from synthesis.text.evidence import supported
from synthesis.text.kinds import leaves
from synthesis.text.lexicon import lexicon
from synthesis.text.saying import spaced

_EMPTY_WORDS = frozenset(
    ("the", "and", "for", "with", "that", "this", "from", "into", "only", "just", "all", "any", "its")
)


def ground(trajectory: Trajectory, draft: Draft, tools: dict[str, Tool]) -> list[CriticalParameter]:
    """Return every argument that the author or the rule holds for critical, with both verdicts.

    Eq. 2, our reading: an argument is critical if its value stands in the request and did not (only) come from an
    earlier result. An argument that is a proven data-flow edge is critical only if the author shows words that say it.
    `tools` is keyed by full name.
    """
    claimed = {(claim.step, claim.parameter): claim for claim in draft.critical}
    flowing = {(edge.target, edge.parameter) for edge in trajectory.edges}
    found: list[CriticalParameter] = []
    for i, step in enumerate(trajectory.steps):
        for parameter, value in step.arguments.items():
            claim = claimed.get((i, parameter))
            if claim is not None:
                by_rule = _proven(parameter, value, claim.evidence, draft.request, tools[step.tool])
                found.append(claim.model_copy(update={"by_author": True, "by_rule": by_rule}))
            elif (i, parameter) not in flowing and supported(value, draft.request):
                found.append(CriticalParameter(step=i, parameter=parameter, value=value, by_author=False, by_rule=True))
    return found


def agreed(critical: list[CriticalParameter]) -> list[CriticalParameter]:
    """Return the parameters on which both verdicts agree: the critical ones."""
    return [parameter for parameter in critical if parameter.by_author and parameter.by_rule]


def _proven(parameter: str, value: Json, evidence: str, request: str, tool: Tool) -> bool:
    """The rule: the evidence stands in the request, and says the value."""
    if not evidence or evidence.casefold() not in request.casefold():
        return False
    scalars = list(leaves(value))
    if any(not isinstance(leaf, bool) and leaf is not None for leaf in scalars) and supported(value, evidence):
        return True
    return _speaks_of(parameter, value, evidence, tool)


def _speaks_of(parameter: str, value: Json, evidence: str, tool: Tool) -> bool:
    """Whether the words name a boolean or enumerated value without holding it: "in bold", "highest first".

    They do if they share a word's stem with the value, its synonyms, or (for what can only be yes or no) with the
    parameter's name or description.
    """
    schema = schema_of(tool, parameter)
    scalars = [leaf for leaf in leaves(value) if leaf is not None]
    if not isinstance(value, bool | dict) and "enum" not in schema and not _fixed_words(scalars):
        return False
    about = [spaced(str(leaf)) for leaf in scalars if isinstance(leaf, str)]
    about += [synonym for leaf in scalars if isinstance(leaf, str) for synonym in lexicon().synonyms.get(leaf, [])]
    if isinstance(value, bool | dict):
        about += [spaced(parameter), str(schema.get("description", ""))]
        about += [spaced(key) for key in value] if isinstance(value, dict) else []
    said = _stems(evidence)
    return any(said & _stems(words) for words in about)


def _fixed_words(scalars: list[Json]) -> bool:
    """Single words only, which a schema without an enumeration may still mean as fixed choices (`ascending`)."""
    return bool(scalars) and all(isinstance(leaf, str) and re.fullmatch(r"[A-Za-z_]+", leaf) for leaf in scalars)


def _stems(words: str) -> set[str]:
    """The first four letters of the words that carry meaning: enough for bold/bolder, ascending/ascend."""
    return {word[:4] for word in re.findall(r"[a-z]{3,}", words.casefold()) if word not in _EMPTY_WORDS}
