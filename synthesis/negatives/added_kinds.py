"""Four kinds of negatives beyond the paper's: what a trained model still gets wrong (ours; see `docs/synthesis.md`).

A model that has seen only changed values of critical parameters may still take a value that the user ruled out or
meant for another parameter, add an argument that nobody asked for, or call the neighbour of the right tool. These
mistakes come from the request and from what the servers offer, so they need no author.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest

from synthesis.calls.effects import reads_only
from synthesis.negatives.mutations import Added
from synthesis.records import Json, Mutation, Primitive, Sample, Step, Tool, Trajectory
from synthesis.requests.critical import agreed
from synthesis.schemas import accepts, properties, required, schema_of
from synthesis.seeds import seeded
from synthesis.text.equality import normal_form, same_meaning
from synthesis.text.evidence import stands_in, supported
from synthesis.text.kinds import leaves
from synthesis.text.saying import spaced

NEIGHBOURS = 3
"""The likeliest tools to be taken for the right one."""
EACH = 3
"""Values tried for one optional argument."""

Seen = Mapping[tuple[str, str], Sequence[Json]]
"""Values that real calls took, by the tool's full name and the parameter."""


def values_seen(primitives: Iterable[Primitive]) -> Seen:
    """Return the different values that the accepted real calls gave to each parameter, in order."""
    found: dict[tuple[str, str], dict[str, Json]] = defaultdict(dict)
    for primitive in primitives:
        if primitive.verdict == "ok":
            for parameter, value in primitive.arguments.items():
                found[primitive.tool, parameter].setdefault(normal_form(value), value)
    return {key: list(values.values()) for key, values in found.items()}


def distractors(sample: Sample, trajectory: Trajectory, turn: int) -> Iterator[Mutation]:
    """Yield, for the critical parameters of a turn, the values that the request mentions and rules out.

    The guard "the request says it" does not apply: it does say it, and says not to take it.
    """
    critical = {(parameter.step, parameter.parameter) for parameter in agreed(sample.critical)}
    for found in sample.distractors:
        step = trajectory.steps[found.step]
        if step.turn == turn and (found.step, found.parameter) in critical:
            before = step.arguments[found.parameter]
            if type(before) is type(found.value) and not same_meaning(before, found.value):
                yield Mutation(
                    step=found.step, parameter=found.parameter, kind="distractor", before=before, after=found.value
                )


def neighbour_values(
    sample: Sample, trajectory: Trajectory, turn: int, tools: Mapping[str, Tool]
) -> Iterator[Mutation]:
    """Yield, for the critical parameters of a turn, values that the request says for other critical parameters.

    What may be taken for each other is declared alike: two plain texts, two choices of the same list. Those of the same
    call come first, then the nearest calls'. A call that another step of the task makes is none: to
    make it is right, if early. The guard "the request says it" does not apply: it does say it, for something else.
    """
    critical = agreed(sample.critical)
    gold = {(step.tool, normal_form(step.arguments)) for step in trajectory.steps}
    for own in critical:
        step = trajectory.steps[own.step]
        if step.turn != turn:
            continue
        seen = {normal_form(own.value)}
        for other in sorted(critical, key=lambda other: abs(other.step - own.step)):
            before, after = step.arguments[own.parameter], other.value
            theirs = tools[trajectory.steps[other.step].tool]
            alike = _declared(tools[step.tool], own.parameter) == _declared(theirs, other.parameter)
            if not alike or same_meaning(before, after) or normal_form(after) in seen:
                continue
            seen.add(normal_form(after))
            call = (step.tool, normal_form({**step.arguments, own.parameter: after}))
            if call not in gold and accepts(tools[step.tool], own.parameter, after):
                yield Mutation(
                    step=own.step, parameter=own.parameter, kind="neighbour_value", before=before, after=after
                )


def _declared(tool: Tool, parameter: str) -> dict[str, Json]:
    """What the schema says that the parameter holds, without words about it."""
    words = ("title", "description", "default", "examples")
    return {key: value for key, value in schema_of(tool, parameter).items() if key not in words}


def extra_arguments(index: int, step: Step, tool: Tool, request: str, seen: Seen) -> Iterator[Mutation]:
    """Yield optional arguments that the request says nothing of, with values of real calls or of the schema.

    Left out: what is the default or reads like one (nothing, zero, empty, a plain no), and what the request may mean,
    because it names the parameter or says the value.
    """
    needed = required(tool.input_schema)
    for parameter, schema in properties(tool.input_schema).items():
        if parameter in step.arguments or parameter in needed:
            continue
        if stands_in(spaced(parameter), request):
            continue
        values = seen.get((tool.full_name, parameter)) or _offered(schema)
        telling = [value for value in values if not _idle(value, schema) and not supported(value, request)]
        for value in telling[:EACH]:
            yield Mutation(step=index, parameter=parameter, kind="extra_argument", before=None, after=value, added=True)


def _offered(schema: dict[str, Json]) -> list[Json]:
    return list(schema.get("enum", [])) or ([True] if schema.get("type") == "boolean" else [])


def _idle(value: Json, schema: dict[str, Json]) -> bool:
    """Whether giving the value most likely changes nothing."""
    if "default" in schema and same_meaning(schema["default"], value):
        return True
    return all(leaf in (None, 0, "", False) for leaf in leaves(value))


def siblings(index: int, step: Step, tools: Mapping[str, Tool], needed: frozenset[str]) -> Iterator[Mutation]:
    """Yield calls of other tools of the same server that can be made from the right call's arguments, likeliest first.

    A sibling shares at least one argument and needs none that the right call lacks. Tools that the task `needed` are
    none: to call one of them is not a wrong choice; nor are those that look like another way to do the same. What
    remains can still do the same by another name: that is seen when the call is executed.
    """
    gold = tools[step.tool]
    near = [tool for tool in tools.values() if tool.server == gold.server and tool.full_name not in needed]
    made: list[tuple[float, Mutation]] = []
    for tool in near:
        arguments = {name: step.arguments[name] for name in properties(tool.input_schema) if name in step.arguments}
        complete = all(name in arguments for name in required(tool.input_schema))
        if arguments and complete and not (arguments == step.arguments and _another_way(gold, tool)):
            mutation = Mutation(
                step=index,
                parameter="",
                kind="sibling_tool",
                before=gold.full_name,
                after=tool.full_name,
                arguments=arguments,
            )
            made.append((likeness(gold, tool), mutation))
    made.sort(key=lambda item: (-item[0], str(item[1].after)))
    yield from (mutation for _, mutation in made[:NEIGHBOURS])


def proposer(tools: Mapping[str, Tool], primitives: Iterable[Primitive], seed: int) -> Added:
    """Return what proposes mutations for a turn; extra arguments take values of the accepted `primitives`."""
    return partial(_propose, tools, values_seen(primitives), seed)


def _propose(
    tools: Mapping[str, Tool], seen: Seen, seed: int, sample: Sample, trajectory: Trajectory, turn: int
) -> list[Mutation]:
    """Return the added mutations of one turn, those to be taken first in front.

    Values that the request rules out come first, for few requests have one; then the other kinds in turn.
    """
    needed = frozenset(step.tool for step in trajectory.steps)
    if trajectory.condition is not None:
        needed |= {trajectory.condition.then_tool, trajectory.condition.else_tool}
    added: list[Mutation] = []
    others: list[Mutation] = []
    for index in trajectory.turns[turn]:
        step = trajectory.steps[index]
        added += extra_arguments(index, step, tools[step.tool], sample.request, seen)
        others += siblings(index, step, tools, needed)
    rng = seeded(seed, "further", sample.id, turn)
    neighbours = list(neighbour_values(sample, trajectory, turn, tools))
    kinds = [rng.sample(found, len(found)) for found in (added, others, neighbours)]
    rng.shuffle(kinds)
    in_turn = [mutation for pair in zip_longest(*kinds) for mutation in pair if mutation is not None]
    return [*distractors(sample, trajectory, turn), *in_turn]


def _another_way(gold: Tool, other: Tool) -> bool:
    """Whether two tools that change something are variants of one: `add_note`, `add_note_safely`."""
    return not reads_only(gold) and spaced(gold.name).split()[:2] == spaced(other.name).split()[:2]


def likeness(first: Tool, second: Tool) -> float:
    """How easily two tools are taken for each other, in [0, 1]: the words that their names and descriptions share."""
    return (_overlap(spaced(first.name), spaced(second.name)) + _overlap(first.description, second.description)) / 2


def _overlap(first: str, second: str) -> float:
    mine, theirs = (set(re.findall(r"[a-z]{3,}", text.casefold())) for text in (first, second))
    return len(mine & theirs) / max(len(mine | theirs), 1)
