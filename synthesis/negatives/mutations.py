"""Negatives: assistant turns that would run, yet are not what the user asked for (RISE, section 3.3.2).

The critical parameters of one decision turn are mutated, all else stays. Every critical parameter has a pool of
deviating values (from the author) and, where it may be left out, the deletion; combinations over the pools are sampled
by `sampling`. Nothing gets through that the tool's schema refuses, that means the same as gold, or that the request
itself supports. Kinds beyond the paper's come from `added_kinds`.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from synthesis.authors.base import Author
from synthesis.negatives.distances import Distance, surface
from synthesis.negatives.sampling import Space, complexity
from synthesis.records import CriticalParameter, Json, Mutation, MutationKind, Negative, Sample, Tool, Trajectory
from synthesis.requests.critical import agreed
from synthesis.schemas import accepts, arguments_fault, required, schema_of
from synthesis.seeds import digest, seeded
from synthesis.servers.sandbox.workspace import LOGICAL
from synthesis.text.equality import normal_form, same_meaning
from synthesis.text.evidence import supported
from synthesis.text.saying import say

THRESHOLD = 0.1
"""Combinations are dropped whose complexity is in the lowest tenth between the least that a turn's number of critical
parameters allows (one of them mutated, nearly to itself) and 1. The paper has a threshold of its own, which is not
known; one number for all turns would drop nothing where there are five parameters or fewer."""
ADDED_SHARE = 5
"""One negative in so many is of a kind beyond the paper's, where one is possible: enough to be learnt, and the paper's
mutations stay four fifths of the data."""


_DEFAULT = re.compile(
    r"(?i)\bdefault(?:s| value)?(?: is| to|:| =|=)? ?[\"'`]?([\w.#/-]+)|[\"'`]?([\w.#/-]+)[\"'`]? ?\((?:the )?default\)"
)


@dataclass(frozen=True)
class Site:
    """One critical parameter of a turn and what may be put in its place."""

    critical: CriticalParameter
    options: list[Mutation]
    deviations: list[float]
    """The deviation of each option; a deletion counts as 1."""


def allowed(tool: Tool, arguments: dict[str, Json], parameter: str, after: Json, request: str) -> bool:
    """The guards on one mutated value: of gold's type, of another meaning, not in the request, valid by its schema.

    A whole number does not become a fraction; whether a fraction may become whole is for the schema to say.
    """
    before = arguments[parameter]
    types = {type(before), type(after)}
    if len(types) > 1 and (types != {int, float} or (isinstance(before, int) and not float(after).is_integer())):
        return False
    if same_meaning(before, after) or supported(after, request):
        return False
    return accepts(tool, parameter, after)


def deletable(tool: Tool, arguments: dict[str, Json], parameter: str) -> bool:
    """Whether leaving the parameter out is possible and changes the call: not required, and not at its default.

    A default stands in the schema or in what is said of the parameter; where none does, no, nothing and zero say what
    silence says. The sandbox's own folder counts as a default too, for servers work in it.
    """
    schema, value = schema_of(tool, parameter), arguments[parameter]
    given = schema.get("default")
    default = same_meaning(given, value) if given is not None else value in (None, False, 0, "", [], {})
    default = default or value == LOGICAL or _said_default(tool, parameter, value)
    rest = {name: value for name, value in arguments.items() if name != parameter}
    return parameter not in required(tool.input_schema) and not default and not arguments_fault(tool, rest)


def _said_default(tool: Tool, parameter: str, value: Json) -> bool:
    """Whether the parameter's description, or a line about it in the tool's, names the value as its default."""
    about = [str(schema_of(tool, parameter).get("description", ""))]
    about += re.findall(rf"(?m)^.*\b{re.escape(parameter)}\b.*$", tool.description)
    named = [match[1] or match[2] for text in about for match in _DEFAULT.finditer(text)]
    return any(word and same_meaning(word.rstrip("."), say(value)) for word in named)


def sites(
    sample: Sample,
    trajectory: Trajectory,
    turn: int,
    tools: dict[str, Tool],
    author: Author,
    seed: int,
    distance: Distance = surface,
) -> list[Site]:
    """Return the turn's critical parameters, each with its guarded pool (which may be empty)."""
    pools: _Pools = []
    for critical in agreed(sample.critical):
        step = trajectory.steps[critical.step]
        if step.turn == turn:
            pools.append(
                (critical, list(_pool(critical, step.arguments, tools[step.tool], sample.request, author, seed)))
            )
    pools = _deviating(pools, sample, trajectory, tools, author)
    known = iter(distance([(m.before, m.after) for _, pool in pools for m in pool if not m.deleted]))
    return [Site(critical, pool, [1.0 if m.deleted else next(known) for m in pool]) for critical, pool in pools]


_Pools = list[tuple[CriticalParameter, list[Mutation]]]


def _deviating(pools: _Pools, sample: Sample, trajectory: Trajectory, tools: dict[str, Tool], author: Author) -> _Pools:
    """The pools without what the author, who sees request and call now, says to be asked for too."""
    kept: _Pools = []
    for index in dict.fromkeys(critical.step for critical, _ in pools):
        step, own = trajectory.steps[index], [(critical, pool) for critical, pool in pools if critical.step == index]
        changes = [mutation for _, pool in own for mutation in pool if not mutation.deleted]
        verdicts = iter(author.deviating(sample.request, tools[step.tool], step.arguments, changes))
        kept += [
            (critical, [mutation for mutation in pool if mutation.deleted or next(verdicts)]) for critical, pool in own
        ]
    return kept


def _pool(
    critical: CriticalParameter, arguments: dict[str, Json], tool: Tool, request: str, author: Author, seed: int
) -> Iterator[Mutation]:
    step, name = critical.step, critical.parameter
    before = arguments[name]
    seen = {normal_form(before)}
    for kind, after in author.alternatives(tool, name, before, seed):
        if normal_form(after) not in seen and allowed(tool, arguments, name, after, request):
            seen.add(normal_form(after))
            yield Mutation(step=step, parameter=name, kind=kind, before=before, after=after)
    if deletable(tool, arguments, name):
        yield Mutation(step=step, parameter=name, kind="deletion", before=before, deleted=True)


Added = Callable[[Sample, Trajectory, int], list[Mutation]]
"""Proposes mutations of the kinds beyond the paper's for one turn, the first to be taken first: `added_kinds`."""
_Proposal = tuple[list[Mutation], float]
"""Mutations that are made together, and the sum of their deviations."""


def paper_only(sample: Sample, trajectory: Trajectory, turn: int) -> list[Mutation]:
    """Propose nothing: every negative then differs from gold in critical parameters alone."""
    return []


def negatives(
    sample: Sample,
    trajectory: Trajectory,
    tools: dict[str, Tool],
    author: Author,
    count: int,
    seed: int,
    added: Added = paper_only,
    spare: int = 0,
    distance: Distance = surface,
) -> list[Negative]:
    """Return distinct negatives for every decision turn that has a critical parameter, turn by turn.

    A turn gets at most `count`, one in `ADDED_SHARE` of them from `added` where it has any, and after them at most
    `spare` more, to take the place of those that turn out to do the same as the right call.
    """
    found: list[Negative] = []
    pool_seed = seeded(seed, "pools", sample.id).getrandbits(32)
    for turn in range(len(trajectory.turns)):
        here = sites(sample, trajectory, turn, tools, author, pool_seed, distance)
        if any(site.options for site in here):
            rng = seeded(seed, "negatives", sample.id, turn)
            due = count // ADDED_SHARE + (rng.random() < count % ADDED_SHARE / ADDED_SHARE)
            first = added(sample, trajectory, turn)[:due]
            proposals = chain(_singles(first, distance), _drawn(here, count - len(first), 2 * (count + spare), rng))
            found += islice(_distinct(sample, trajectory, turn, tools, len(here), proposals), count + spare)
    return found


def _singles(mutations: list[Mutation], distance: Distance) -> Iterator[_Proposal]:
    """An added argument and another tool deviate entirely, as a deletion does."""
    for mutation in mutations:
        near = mutation.kind in ("distractor", "neighbour_value")
        yield [mutation], distance([(mutation.before, mutation.after)])[0] if near else 1.0


def _drawn(here: list[Site], wanted: int, more: int, rng: random.Random) -> Iterator[_Proposal]:
    """Draw `wanted` combinations of the pools, then `more`, in which earlier ones may come again."""
    least = complexity(1, len(here), 0.0)
    space = Space([site.deviations for site in here], least + THRESHOLD * (1 - least))
    for number in (wanted, more):
        for choice in space.sample(number, rng):
            changed = [(site, option - 1) for site, option in zip(here, choice, strict=True) if option]
            yield (
                [site.options[option] for site, option in changed],
                sum(site.deviations[option] for site, option in changed),
            )


def _distinct(
    sample: Sample,
    trajectory: Trajectory,
    turn: int,
    tools: dict[str, Tool],
    sites: int,
    proposals: Iterable[_Proposal],
) -> Iterator[Negative]:
    """Yield the proposals as negatives whose calls are valid and were not there before, nor are gold's."""
    gold = calls_of(trajectory, trajectory.turns[turn])
    seen = {_multiset(gold)}
    for mutations, deviations in proposals:
        negative = _negative(sample, trajectory, turn, mutations, complexity(len(mutations), sites, deviations))
        calls = apply(gold, negative, trajectory)
        key = _multiset(calls)
        if key not in seen and not any(arguments_fault(tools[call["name"]], call["arguments"]) for call in calls):
            seen.add(key)
            yield negative


def calls_of(trajectory: Trajectory, steps: Sequence[int]) -> list[dict[str, Any]]:
    """The right calls of some steps, each `{"name": full tool name, "arguments": {...}}`."""
    return [{"name": trajectory.steps[i].tool, "arguments": dict(trajectory.steps[i].arguments)} for i in steps]


def _multiset(calls: list[dict[str, Any]]) -> str:
    """The calls as a key in which their order does not count: two calls that swapped places do the same."""
    return "|".join(sorted(f"{call['name']}{normal_form(call['arguments'])}" for call in calls))


def _negative(sample: Sample, trajectory: Trajectory, turn: int, mutations: list[Mutation], score: float) -> Negative:
    kind: MutationKind = mutations[0].kind if len(mutations) == 1 else "combination"
    return Negative(
        id=digest(sample.id, turn, [mutation.model_dump() for mutation in mutations]),
        sample_id=sample.id,
        turn=turn,
        kind=kind,
        mutations=mutations,
        score=round(score, 6),
        primitive_ids=list(dict.fromkeys(trajectory.steps[mutation.step].primitive_id for mutation in mutations)),
    )


def apply(calls: list[dict[str, Any]], negative: Negative, trajectory: Trajectory) -> list[dict[str, Any]]:
    """Return the turn's calls with the negative's mutations in them; `calls`, gold's in step order, are not changed.

    A call is `{"name": full tool name, "arguments": {...}}`; the order of the arguments is gold's, with added ones at
    the end.
    """
    changed = deepcopy(calls)
    position = {step: i for i, step in enumerate(trajectory.turns[negative.turn])}
    for mutation in negative.mutations:
        call = changed[position[mutation.step]]
        if mutation.kind == "sibling_tool":
            call |= {"name": mutation.after, "arguments": deepcopy(mutation.arguments)}
        elif mutation.deleted:
            del call["arguments"][mutation.parameter]
        else:
            call["arguments"][mutation.parameter] = deepcopy(mutation.after)
    return changed
