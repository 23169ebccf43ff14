"""Which primitives to put together: single, sequential, parallel, conditional; spread evenly over the tools."""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from synthesis.authors.base import Candidate
from synthesis.calls.candidates import candidate_id, setup_candidates
from synthesis.calls.effects import reads_only
from synthesis.calls.protocol import Policy
from synthesis.calls.references import has_reference, unresolved
from synthesis.records import Json, Pattern, Primitive, Tool
from synthesis.seeds import digest, seeded
from synthesis.text.visible import shown
from synthesis.trajectories.conditions import content_words, words_of

SHARES: dict[Pattern, float] = {"single": 0.31, "sequential": 0.31, "parallel": 0.20, "conditional": 0.18}
"""Aimed share of each pattern; where one runs out of plans, the others take its place."""
MAX_STEPS = 8
SEQUENTIAL_STEPS = [0, 0, 48, 27, 12, 5, 4, 2, 2]
PARALLEL_STEPS = [0, 0, 52, 30, 12, 4, 2]
CONDITIONAL_STEPS = [0, 0, 70, 20, 10]
"""How often plans have how many steps, as weights by number of steps: mostly short, as requests are."""
MAX_TOOLS, MAX_CHARS = 4, 6500
"""What a plan of five steps and more may hold: different tools, and characters in the model's prompt. The first four
steps are free; without a bound, a long plan would not fit a small model's context."""
MEMORY_SHARE = 0.06
"""At most this share of trajectories may touch a server that must be restarted for a clean start."""
FLOW_OF_MEMORY = 0.7
"""Share of those that is kept for data flow, where such servers have it: a handle that one call gives the next."""
FLOWING, FEEDING = 0.6, 0.8
"""Share of sequential plans that rest on a setup, and share of these in which its result feeds an argument."""
LONG_FLOWS = 0.1
"""Share of plans with data flow that may have more than four steps."""
SAME_SERVER = 0.6
"""Probability that a further call of a plan stays on the first call's server."""
MAX_FAILURES = 3
"""A primitive that stood in so many rejected plans, and in no accepted one since, is planned with no more."""
ATTEMPTS, MISSES = 40, 5
"""Draws for one plan, and how many times in a row they may all be in vain before a pattern counts as exhausted."""


@dataclass(frozen=True)
class PlannedCall:
    """One call of a plan; its arguments may hold references to the results of earlier calls, by step index."""

    turn: int
    tool: str
    arguments: dict[str, Json]
    primitive_id: str


@dataclass(frozen=True)
class PlannedCondition:
    """Whether `value` stands in the first call's result decides between the second call and `other`."""

    value: str
    holds: bool
    other: PlannedCall


@dataclass(frozen=True)
class Plan:
    """A trajectory that has not been executed yet."""

    pattern: Pattern
    calls: tuple[PlannedCall, ...]
    condition: PlannedCondition | None = None

    @property
    def id(self) -> str:
        """Id of the trajectory that it becomes: known before it runs."""
        condition = (
            (self.condition.value, self.condition.holds, self.condition.other.primitive_id) if self.condition else None
        )
        return digest("trajectory", self.pattern, [(call.turn, call.primitive_id) for call in self.calls], condition)

    @property
    def primitive_ids(self) -> list[str]:
        """Ids of all primitives that the plan rests on, the branch not taken included."""
        other = [self.condition.other.primitive_id] if self.condition else []
        return [call.primitive_id for call in self.calls] + other


@dataclass
class _Tally:
    """How often something was planned, and how it went."""

    tools: Counter[str] = field(default_factory=Counter)
    primitives: Counter[str] = field(default_factory=Counter)
    patterns: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    holds: Counter[bool] = field(default_factory=Counter)
    memory: Counter[bool] = field(default_factory=Counter)
    """Trajectories that touched a server with memory, by whether they hold data flow."""


class Planner:
    """Deals plans, one at a time; what it deals depends on the primitives, the seed and the outcomes told to it."""

    def __init__(
        self,
        primitives: Iterable[Primitive],
        tools: dict[str, Tool],
        policies: dict[str, Policy],
        seed: int,
        result_chars: int = 300,
    ) -> None:
        """`result_chars` is how much of a result the model sees: conditions hang on nothing behind that."""
        self.tools, self.policies, self.seed = tools, policies, seed
        usable = {p.id: p for p in primitives if p.verdict == "ok" and p.deterministic and p.tool in tools}
        plain: dict[str, list[Primitive]] = defaultdict(list)
        self.flows: dict[str, list[tuple[Primitive, list[str]]]] = defaultdict(list)
        for primitive in sorted(usable.values(), key=lambda p: (p.tool, p.id)):
            if not primitive.setup:
                plain[primitive.tool].append(primitive)
            elif (setup := self._setup_ids(primitive)) and all(key in usable for key in setup):
                self.flows[primitive.tool].append((primitive, setup))
        self.plain = dict(plain)
        self.result_chars = result_chars
        self.results = {name: [self._seen(p) for p in found] for name, found in self.plain.items()}
        self.feeding = {name: fed for name, found in self.flows.items() if (fed := [f for f in found if _feeds(f[0])])}
        self.readers = [name for name in sorted(self.plain) if self._is_reader(name)]
        self.open: set[Pattern] = set(SHARES)
        self.misses: Counter[Pattern] = Counter()
        self.dealt: set[str] = set()
        self.tally = _Tally()
        self.count = 0

    def _setup_ids(self, primitive: Primitive) -> list[str]:
        return [candidate_id(c, self.tools) for c in setup_candidates(_candidate(primitive), self.tools)]

    def next(self) -> Plan | None:
        """The next plan that was not dealt before, or None when there is none left."""
        done = sum(self.tally.patterns.values()) + 1
        for pattern in sorted(self.open, key=lambda p: (self.tally.patterns[p] - SHARES[p] * done, p)):
            for _ in range(ATTEMPTS):
                self.count += 1
                plan = self._draw(pattern, seeded(self.seed, "plan", self.count))
                if plan is not None and plan.id not in self.dealt and self._sound(plan):
                    self.dealt.add(plan.id)
                    self.misses[pattern] = 0
                    self._count(plan, 1)
                    self.tally.tools.update(call.tool for call in plan.calls)
                    self.tally.primitives.update(call.primitive_id for call in plan.calls)
                    return plan
            self.misses[pattern] += 1
            if self.misses[pattern] == MISSES:
                self.open.discard(pattern)
        return self.next() if self.open else None

    def tell(self, plan: Plan, accepted: bool) -> None:
        """Take note of how `plan` went. A rejected one does not count for its pattern, but it does for its tools.

        Else a tool that always fails would stay the least used one, and be dealt again and again. A primitive that has
        run in an accepted plan is not to blame for what failed before.
        """
        if accepted:
            for key in plan.primitive_ids:
                self.tally.failures.pop(key, None)
        else:
            self._count(plan, -1)
            self.tally.failures.update(plan.primitive_ids)
            self._retire({key for key in plan.primitive_ids if self.tally.failures[key] >= MAX_FAILURES})

    def _retire(self, keys: set[str]) -> None:
        """Plan no more with these primitives; a tool that has no other is not chosen again."""
        left = {name: [p for p in found if p.id not in keys] for name, found in self.plain.items()}
        self.plain = {name: found for name, found in left.items() if found}
        self.readers = [name for name in self.readers if name in self.plain]

    def _count(self, plan: Plan, by: int) -> None:
        self.tally.patterns[plan.pattern] += by
        if plan.condition:
            self.tally.holds[plan.condition.holds] += by
        if any(self._keeps_memory(call.tool) for call in plan.calls):
            self.tally.memory[any(has_reference(call.arguments) for call in plan.calls)] += by

    def _keeps_memory(self, name: str) -> bool:
        return self.policies[self.tools[name].server].keeps_memory

    def _memory_allowed(self, flowing: bool) -> bool:
        for_flow = FLOW_OF_MEMORY if any(map(self._keeps_memory, self.flows)) else 0.0
        share = MEMORY_SHARE * (for_flow if flowing else 1 - for_flow)
        return self.tally.memory[flowing] < share * (sum(self.tally.patterns.values()) + 1)

    def _sound(self, plan: Plan) -> bool:
        unique = len(set(plan.primitive_ids)) == len(plan.primitive_ids)
        fits = len(plan.calls) <= 4 or self._chars(plan) <= MAX_CHARS
        return unique and fits and all(self.tally.failures[key] < MAX_FAILURES for key in plan.primitive_ids)

    def _chars(self, plan: Plan) -> int:
        """About how much the plan puts into a prompt: tools, arguments (said, and called) and results."""
        specs = sum(len(json.dumps(self.tools[name].spec())) for name in {call.tool for call in plan.calls})
        return specs + sum(2 * len(json.dumps(call.arguments)) + self.result_chars for call in plan.calls)

    def _draw(self, pattern: Pattern, rng: random.Random) -> Plan | None:
        if pattern == "single":
            return self._single(rng)
        if pattern == "parallel":
            return self._parallel(rng)
        if pattern == "conditional":
            return self._conditional(rng)
        return self._flow(rng) if self.flows and rng.random() < FLOWING else self._in_turn(rng)

    def _choose(self, names: Iterable[str], rng: random.Random, flowing: bool = False) -> str | None:
        """The tool used least so far, among those allowed; ties by chance."""
        allowed = sorted(names)
        if not self._memory_allowed(flowing):
            allowed = [name for name in allowed if not self._keeps_memory(name)]
        if not allowed:
            return None
        return min(allowed, key=lambda name: (self.tally.tools[name], rng.random()))

    def _pick(self, primitives: Sequence[Primitive], rng: random.Random) -> Primitive:
        """The primitive used least so far, of one tool: the more different calls, the more there is to learn."""
        return min(primitives, key=lambda p: (self.tally.primitives[p.id], rng.random()))

    def _companions(
        self, first: str, count: int, names: Iterable[str], rng: random.Random, flowing: bool = False
    ) -> list[str]:
        """Further tools to go with `first`: mostly of its server, rarely used ones first, not always the same."""
        chosen: list[str] = []
        everything = sorted(names)
        near = [name for name in everything if self.tools[name].server == self.tools[first].server]
        for _ in range(count):
            pool = near if near and rng.random() < SAME_SERVER else everything
            if (name := self._choose(rng.sample(pool, min(4, -(-len(pool) // 2))), rng, flowing)) is not None:
                chosen.append(name)
        return chosen

    def _single(self, rng: random.Random) -> Plan | None:
        fresh = [name for name, found in self.plain.items() if self._unused(found)]
        name = self._choose(fresh, rng)
        if name is None:
            return None
        return Plan("single", (_call(0, self._pick(self._unused(self.plain[name]), rng)),))

    def _unused(self, primitives: Sequence[Primitive]) -> list[Primitive]:
        return [p for p in primitives if Plan("single", (_call(0, p),)).id not in self.dealt]

    def _in_turn(self, rng: random.Random) -> Plan | None:
        """Steps that follow on each other; a long plan calls some of its tools again, with other arguments."""
        first = self._choose(self.plain, rng)
        if first is None:
            return None
        steps = _length(SEQUENTIAL_STEPS, rng)
        names = [first, *self._companions(first, min(steps, MAX_TOOLS) - 1, self.plain, rng)]
        if len(names) < 2:
            return None
        names += [rng.choice(names) for _ in range(steps - len(names))] if steps > MAX_TOOLS else []
        chosen = self._pick_each(names, rng)
        if len(chosen) < 2:
            return None
        return Plan("sequential", tuple(_call(turn, primitive) for turn, primitive in enumerate(chosen)))

    def _pick_each(self, names: Sequence[str], rng: random.Random) -> list[Primitive]:
        """One primitive for each name, none twice; a tool that has no more is left out."""
        chosen: dict[str, Primitive] = {}
        for name in names:
            if left := [p for p in self.plain[name] if p.id not in chosen]:
                primitive = self._pick(left, rng)
                chosen[primitive.id] = primitive
        return list(chosen.values())

    def _flow(self, rng: random.Random) -> Plan | None:
        """A setup whose result feeds the target, and sometimes a second target that rests on the same setup."""
        flows = self.feeding if self.feeding and rng.random() < FEEDING else self.flows
        name = self._choose(flows, rng, flowing=True)
        if name is None:
            return None
        target = self._pick([primitive for primitive, _ in flows[name]], rng)
        setup_ids = self._setup_ids(target)
        calls = [
            PlannedCall(turn, call["tool"], call["arguments"], key)
            for turn, (call, key) in enumerate(zip(target.setup, setup_ids, strict=True))
        ]
        limit = MAX_STEPS if rng.random() < LONG_FLOWS else 4
        targets = [target, *self._same_setup(target, setup_ids, limit - len(calls) - 1, rng)]
        for primitive in targets:
            calls.append(PlannedCall(len(calls), primitive.tool, unresolved(primitive), primitive.id))
        return Plan("sequential", tuple(calls)) if len(calls) <= MAX_STEPS else None

    def _same_setup(self, target: Primitive, setup_ids: list[str], room: int, rng: random.Random) -> list[Primitive]:
        """Further targets; where the clean start was dear, as many as there is room for."""
        dear = self._keeps_memory(target.tool)
        if room < 1 or (not dear and rng.random() < 0.3):
            return []
        alike = [name for name, found in self.flows.items() if any(ids == setup_ids for _, ids in found)]
        names = self._companions(target.tool, room if dear else rng.randint(1, room), alike, rng, flowing=True)
        return [self._pick([p for p, ids in self.flows[name] if ids == setup_ids], rng) for name in names]

    def _parallel(self, rng: random.Random) -> Plan | None:
        first = self._choose(self.plain, rng)
        if first is None:
            return None
        names = [first]
        wanted = _length(PARALLEL_STEPS, rng)
        for name in self._companions(first, 2 * wanted, [*self.plain, first], rng):
            if len(names) < wanted and self._independent(name, names):
                names.append(name)
        chosen = self._pick_each(names, rng)
        return Plan("parallel", tuple(_call(0, primitive) for primitive in chosen)) if len(chosen) > 1 else None

    def _independent(self, name: str, others: Sequence[str]) -> bool:
        """Whether the calls give the same in any order: on one server all only look, or there is but one call."""
        near = [other for other in others if self.tools[other].server == self.tools[name].server]
        return not near or all(reads_only(self.tools[other]) for other in [name, *near])

    def _conditional(self, rng: random.Random) -> Plan | None:
        first = self._choose(rng.sample(self.readers, min(3, len(self.readers))), rng)
        if first is None:
            return None
        look = self._pick(self.plain[first], rng)
        branches = [name for name in self._companions(first, 6, self.plain, rng) if name != first]
        if len(set(branches)) < 2:
            return None
        taken, other = (self._pick(self.plain[name], rng) for name in sorted(set(branches), key=branches.index)[:2])
        holds = self.tally.holds[True] <= self.tally.holds[False]
        words = self._words(look, holds, [taken, other])
        if not words:
            return None
        condition = PlannedCondition(rng.choice(words), holds, _call(1, other))
        more = [name for name in branches if name not in (taken.tool, other.tool)]
        after = self._pick_each(more[: _length(CONDITIONAL_STEPS, rng) - 2], rng)
        return Plan("conditional", tuple(_call(turn, p) for turn, p in enumerate([look, taken, *after])), condition)

    def _is_reader(self, name: str) -> bool:
        return reads_only(self.tools[name]) and any(map(content_words, self.results[name]))

    def _seen(self, primitive: Primitive) -> str:
        """What the model sees of a result, without the word that the cut goes through."""
        text = shown(primitive.result, self.result_chars)
        return re.sub(r"\w*\.\.\.$", "", text) if len(text) == self.result_chars else text

    def _words(self, look: Primitive, holds: bool, branches: Sequence[Primitive]) -> list[str]:
        """Words that a user may ask about: in this result, or if not to hold in another; never in all of the tool's."""
        said = words_of(" ".join(str(p.arguments) for p in [look, *branches]))
        seen = self._seen(look)
        others = [text for text in self.results[look.tool] if text != seen]
        near = [t for name, texts in self.results.items() for t in texts if self._same_server(name, look.tool)]
        sources = [look.result] if holds else others or near
        words = {word for text in sources for word in content_words(text)}
        telling = {word for word in words if not others or not all(word.lower() in words_of(text) for text in others)}
        present = words_of(seen if holds else look.result)
        return sorted(word for word in telling if word.lower() not in said and (word.lower() in present) == holds)

    def _same_server(self, name: str, other: str) -> bool:
        return self.tools[name].server == self.tools[other].server


def _length(weights: Sequence[int], rng: random.Random) -> int:
    return rng.choices(range(len(weights)), weights)[0]


def _feeds(primitive: Primitive) -> bool:
    return any("feeds" in call for call in primitive.setup)


def _call(turn: int, primitive: Primitive) -> PlannedCall:
    return PlannedCall(turn, primitive.tool, primitive.arguments, primitive.id)


def _candidate(primitive: Primitive) -> Candidate:
    setup = [{key: value for key, value in call.items() if key != "feeds"} for call in primitive.setup]
    return Candidate(tool=primitive.tool, arguments=unresolved(primitive), setup=setup, coverage=primitive.coverage)
