"""The offline author: phrasebooks for the servers it knows, the schema alone for any other, no language model."""

import random
from collections.abc import Sequence
from pathlib import Path

from synthesis.authors.base import Candidate, Draft
from synthesis.authors.offline import styles, twists
from synthesis.authors.offline.closings import closing
from synthesis.authors.offline.deviations import deviations
from synthesis.authors.offline.fallback import make_book
from synthesis.authors.offline.phrasebook import FOLDER, Phrasebook, SetupCall, ToolEntry, load_folder
from synthesis.authors.offline.twists import Twist
from synthesis.authors.offline.wording import Clause, Mood, clause
from synthesis.calls.candidates import coverage
from synthesis.records import Condition, CriticalParameter, Distractor, Json, Mutation, MutationKind, Tool, Trajectory
from synthesis.schemas import in_order, resolved, schema_of
from synthesis.seeds import seeded
from synthesis.text.equality import canonical
from synthesis.text.evidence import stands_in
from synthesis.text.lexicon import Words
from synthesis.text.saying import forms

TWISTED = 0.55
"""Share of every second request of a trajectory that mentions a wrong value, where there is one to mention."""


class OfflineAuthor:
    """Writes by rule, so the same seed gives the same text. See `Author` for the methods."""

    name = "offline"
    workers = 1

    def __init__(self, folder: Path = FOLDER, files: Sequence[str] = (), words: Words | None = None) -> None:
        """Read the phrasebooks in `folder`; raises UserError for a bad one.

        `files` are the logical paths of the files in the sandbox, for calls of tools that have no phrasebook.
        `words` relates the words of deviating texts (default: the project's lexicon).
        """
        self._words = words
        self._files = tuple(files)
        self._books = load_folder(folder)
        self._made: dict[str, tuple[dict[str, Json], Phrasebook]] = {}

    def book(self, tool: Tool) -> Phrasebook:
        """Return the phrasebook that speaks for `tool`: its server's, or one made from its schema."""
        known = self._books.get(tool.server)
        if known is not None and tool.name in known.tools:
            return known
        made = self._made.get(tool.full_name)
        if made is None or made[0] is not tool.input_schema:
            made = self._made[tool.full_name] = (tool.input_schema, make_book(tool, self._files))
        return made[1]

    def entry(self, tool: Tool) -> ToolEntry:
        """Return the phrasebook entry of `tool`."""
        return self.book(tool).tools[tool.name]

    def candidates(self, tool: Tool, count: int, seed: int, siblings: Sequence[Tool] = ()) -> list[Candidate]:
        """Return at most `count` distinct calls: every case in turn, with no, one, all or some optional parameters.

        Setup calls come from the phrasebook, which knows the server; `siblings` are not looked at.
        """
        rng = seeded(seed, "candidates", tool.full_name)
        book, entry = self.book(tool), self.entry(tool)
        parts = list(entry.parts())
        rng.shuffle(parts)
        found: dict[str, Candidate] = {}
        for attempt in range(30 * count):
            turn, place = divmod(attempt, len(parts))
            case, setup = parts[place]
            extras = [name for name in entry.optional if name not in case]
            taken = _taken(extras, turn + place, rng)
            picked = book.pick({**case, **{name: entry.optional[name] for name in taken}}, rng)
            candidate = _candidate(tool, picked, [_call(tool, book, call, rng) for call in setup])
            found.setdefault(canonical([candidate.arguments, candidate.setup]), candidate)
            if len(found) == count:
                break
        return list(found.values())

    def compose(self, trajectory: Trajectory, tools: dict[str, Tool], variant: int, seed: int) -> Draft:
        """Write the request for `trajectory`; variants differ in style as long as the styles reach, then in wording.

        The first request is plain; every second one may rule a value out, or correct itself.
        """
        order = styles.order_of_styles(trajectory.pattern, seeded(seed, "styles", trajectory.id))
        style = order[variant % len(order)]
        rng = seeded(seed, "compose", trajectory.id, variant)
        chance = seeded(seed, "twist", trajectory.id, variant)
        wanted = variant % 2 == 1 and chance.random() < TWISTED
        twist = twists.choose(trajectory, tools, self._peers, chance) if wanted else None
        request, spoken = _Composer(self, trajectory, tools, style, rng, twist).write()
        critical = [
            CriticalParameter(step=i, parameter=p, value=trajectory.steps[i].arguments[p], evidence=words)
            for i, part in spoken.items()
            for p, words in part.evidence.items()
        ]
        critical += _known_already(trajectory, request, {(claim.step, claim.parameter) for claim in critical})
        of_steps = [tools[step.tool] for step in trajectory.steps]
        reads = [self.entry(tool).effect == "read" for tool in of_steps]
        response = closing(trajectory.steps, reads, [self.book(tool).answers for tool in of_steps], rng)
        draft = Draft(
            request=request,
            response=response,
            style=style,
            critical=critical,
            intentions=[spoken[i].text for i in range(len(trajectory.steps))],
        )
        return draft.model_copy(update=_hard(twist, spoken[twist.step])) if twist else draft

    def _peers(self, tool: Tool, parameter: str, value: Json) -> list[Json]:
        """Other values for a parameter whose value is said as it is."""
        said = not isinstance(self.entry(tool).phrases.get(parameter), dict)
        return self.book(tool).values(tool.name, parameter) if said else []

    def objection(self, trajectory: Trajectory, draft: Draft, tools: dict[str, Tool]) -> str:
        """Nothing to object: rules wrote the request from this very trajectory, and `samples` checks it by rules."""
        return ""

    def alternatives(self, tool: Tool, parameter: str, value: Json, seed: int) -> list[tuple[MutationKind, Json]]:
        """Return deviating values of one parameter; the phrasebook's other values serve as co-hyponyms."""
        book = self.book(tool)
        schema = schema_of(tool, parameter)
        rng = seeded(seed, "alternatives", tool.full_name, parameter, canonical(value))
        peers = book.values(tool.name, parameter)
        return deviations(value, schema, parameter, peers, tool.input_schema, rng, self._words, self._files)

    def deviating(
        self, request: str, tool: Tool, arguments: dict[str, Json], changes: Sequence[Mutation]
    ) -> list[bool]:
        """All of them: what the request supports, or means the same, has been kept out by rule."""
        return [True] * len(changes)


def _known_already(trajectory: Trajectory, request: str, said: set[tuple[int, str]]) -> list[CriticalParameter]:
    """Arguments that come from an earlier result and that the user says all the same, with the words that do.

    Single figures and the like stand in requests for much else, so they are no proof.
    """
    found = []
    for edge in trajectory.edges:
        words = next((form for form in forms(edge.value) if len(form) > 2 and stands_in(form, request)), "")
        if words and (edge.target, edge.parameter) not in said and not isinstance(edge.value, bool):
            claim = {"step": edge.target, "parameter": edge.parameter, "value": edge.value, "evidence": words}
            found.append(CriticalParameter.model_validate(claim))
    return found


def _hard(twist: Twist, part: Clause) -> dict[str, Json]:
    """What a twist adds to the draft."""
    distractor = Distractor(step=twist.step, parameter=twist.parameter, value=twist.wrong, evidence=part.ruled_out)
    return {"difficulty": ["correction" if part.afterthought else twist.kind], "distractors": [distractor]}


def _taken(extras: list[str], number: int, rng: random.Random) -> list[str]:
    """Which optional parameters the candidate of this number gives: none, one (each in turn), all, or some."""
    match number % 4:
        case 1 if extras:
            return [extras[number // 4 % len(extras)]]
        case 2:
            return extras
        case 3:
            return [name for name in extras if rng.random() < 0.5]
    return []


def _candidate(tool: Tool, arguments: dict[str, Json], setup: list[dict[str, Json]]) -> Candidate:
    ordered = in_order(tool, arguments)
    return Candidate(tool=tool.full_name, arguments=ordered, setup=setup, coverage=coverage(tool, arguments))


def _call(tool: Tool, book: Phrasebook, call: SetupCall, rng: random.Random) -> dict[str, Json]:
    name = tool.model_copy(update={"name": call.tool}).full_name
    return {"tool": name, "arguments": book.pick(call.arguments, rng)}


class _Composer:
    """Puts one trajectory into one request, and keeps which clause speaks for which step."""

    def __init__(
        self,
        author: OfflineAuthor,
        trajectory: Trajectory,
        tools: dict[str, Tool],
        style: str,
        rng: random.Random,
        twist: Twist | None,
    ) -> None:
        self.author, self.trajectory, self.tools, self.style, self.rng = author, trajectory, tools, style, rng
        self.twist = twist
        self.earlier: dict[str, str] = {}
        """The one file that "the same file" would mean, with the words that name it; empty where that is not clear."""

    def write(self) -> tuple[str, dict[int, Clause]]:
        """Write the request, with the clause that speaks for each step."""
        text, spoken = self._write()
        afterthoughts = [part.afterthought for part in spoken.values() if part.afterthought]
        ended = text if text[-1] in ".?!" or not afterthoughts else text + "."
        return " ".join([ended, *afterthoughts]), spoken

    def _write(self) -> tuple[str, dict[int, Clause]]:
        condition = self.trajectory.condition
        if condition is not None:
            return self._conditional(condition)
        spoken = {i: self._step(i) for i in range(len(self.trajectory.steps))}
        clauses = list(spoken.values())
        if self.style == "itemised" and len(clauses) > 1:
            return styles.items(clauses, self.trajectory.pattern == "sequential", self.rng), spoken
        joins = [styles.opening(clauses[0], self.style, self.rng), *self._joins(clauses)]
        return styles.request(clauses, joins, self.style, self.rng), spoken

    def _joins(self, clauses: list[Clause]) -> list[str]:
        """Choose the join before each clause but the first: words of order between turns, none inside a turn."""
        steps = self.trajectory.steps
        aside = styles.together(len(clauses) - 1, self.style, self.rng)
        after = styles.sequence(len(clauses) - 1, self.style, self.rng)
        same = [steps[i].turn == steps[i - 1].turn for i in range(1, len(steps))]
        return [also if together else then for together, also, then in zip(same, aside, after, strict=True)]

    def _conditional(self, condition: Condition) -> tuple[str, dict[int, Clause]]:
        """Say the steps up to the check, then both branches, then what follows either way."""
        taken = condition.step + 1
        before = {i: self._step(i) for i in range(taken)}
        if not condition.holds:  # the other branch is said before, and may name a file
            self.earlier = {}
        chosen = self._step(taken)
        other_tool, other_arguments = (
            (condition.else_tool, condition.else_arguments)
            if condition.holds
            else (condition.then_tool, condition.then_arguments)
        )
        other = self._clause(other_tool, other_arguments, {}, ("question", "statement"))
        self.earlier = {}
        after = {i: self._step(i) for i in range(taken + 1, len(self.trajectory.steps))}
        branches = [chosen, other] if condition.holds else [other, chosen]
        clauses = [*before.values(), *branches, *after.values()]
        joins = [
            styles.opening(clauses[0], self.style, self.rng),
            *styles.sequence(len(before) - 1, self.style, self.rng),
            styles.condition(condition.value, self.rng),
            styles.otherwise(self.rng),
            *([styles.either_way(self.rng), *styles.sequence(len(after) - 1, self.style, self.rng)] if after else []),
        ]
        return styles.request(clauses, joins, self.style, self.rng), {**before, taken: chosen, **after}

    def _step(self, index: int) -> Clause:
        step = self.trajectory.steps[index]
        hidden = {
            edge.parameter: self.author.entry(self.tools[self.trajectory.steps[edge.source].tool]).object
            for edge in self.trajectory.edges
            if edge.target == index
        }
        twist = self.twist if self.twist and self.twist.step == index else None
        part = self._clause(step.tool, step.arguments, hidden, ("question", "statement") if index else (), twist)
        if twist or hidden or len(part.values) > 1:  # "the same file" could mean several things now
            self.earlier = {}
        elif part.values:
            self.earlier = part.values
        return part

    def _clause(
        self,
        tool: str,
        arguments: dict[str, Json],
        hidden: dict[str, str],
        avoid: tuple[Mood, ...],
        twist: Twist | None = None,
    ) -> Clause:
        entry = self.author.entry(self.tools[tool])
        root = self.tools[tool].input_schema
        fixed = [name for name in arguments if "enum" in resolved(schema_of(self.tools[tool], name), root)]
        return clause(entry, arguments, hidden, self.earlier, self.rng, avoid, fixed, twist)
