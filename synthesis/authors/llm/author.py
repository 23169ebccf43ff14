"""The LLM author: any OpenAI-compatible model invents calls, writes requests, checks them, and names deviating values.

Four of the prompts follow RISE, sections 3.2.1, 3.2.3 and 3.3.2; their wording is ours, the paper's is not known. The
fifth, which has the model check its deviating values against the request, is ours.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from synthesis.authors.base import AuthorError, Candidate, Draft
from synthesis.authors.llm.answers import Alternatives, Opinion, Request, Verdicts
from synthesis.authors.llm.calls import Calls, answer_schema
from synthesis.authors.llm.prompting import LONG_CHARS, described, offered, prompt
from synthesis.llm.client import (
    AnswerError,
    Client,
    ModelOptions,
    Prompt,
    open_client,
)
from synthesis.llm.costs import load_price
from synthesis.llm.fencing import cleaned, fence
from synthesis.records import Difficulty, Json, Mutation, MutationKind, Step, Tool, Trajectory
from synthesis.schemas import schema_of
from synthesis.seeds import seeded
from synthesis.text.visible import shortened

MAX_FILES = 200
"""Files of the sandbox that a prompt names."""
AT_ONCE = 4
"""Calls asked for in one question: of twelve at once a small model writes the same again."""
EACH = 2
"""Deviating values asked for of each kind."""
STYLES = {
    "plain": "plain and to the point, in full sentences",
    "polite": "polite and friendly",
    "terse": "as short as it can be, like a text message",
    "chatty": "chatty; the user says in passing why they need it",
    "formal": "formal, as in a letter to a company",
    "itemised": "a numbered list where there are several wishes, otherwise one brief order",
    "question": "asked as a question or as several",
    "indirect": "the user tells what they are about to do, and what they need to know or have done for it",
}


class LLMAuthor:
    """Asks a language model. See `Author` for the methods.

    What a model cannot answer costs one call, request or pool, and stands with its reason in `llm_rejected.jsonl`.
    """

    def __init__(self, client: Client, seed: int, files: Sequence[str] = ()) -> None:
        """Ask through `client`; `files` are the paths in the sandbox that candidate calls may name."""
        self.name = f"llm: {client.endpoint.model}"
        self.workers = client.endpoint.workers
        self.costs = client.costs
        self._client, self._seed, self._files = client, seed, sorted(files)

    def candidates(self, tool: Tool, count: int, seed: int, siblings: Sequence[Tool] = ()) -> list[Candidate]:
        """Return at most `count` distinct calls of mixed coverage, with setup calls of `siblings`.

        They are asked for a few at a time, each time with those that are there already. Where no answer holds one that
        is new, less is asked: calls without setup, in a shorter prompt; and then the tool keeps what it has.
        """
        others, found = offered(siblings, tool), list[Candidate]()
        while len(found) < count:
            try:
                found += self._more(tool, min(AT_ONCE, count - len(found)), found, others, siblings, seed)
            except AnswerError:
                if not others:
                    break
                others = []
        return found

    def _more(
        self,
        tool: Tool,
        count: int,
        there: Sequence[Candidate],
        others: Sequence[dict[str, Json]],
        siblings: Sequence[Tool],
        seed: int,
    ) -> list[Candidate]:
        def asked(room: int) -> Prompt:
            files, setups = self._files[: MAX_FILES // room], others[: -(-len(others) // room)]
            return prompt(
                "candidates",
                "primitives",
                tool=fence("tool", described(tool, room)),
                count=count,
                made=fence("made", [cleaned(candidate.arguments) for candidate in there]) if there else "",
                files=fence("files", cleaned(files)) if files else "",
                siblings=fence("siblings", setups) if setups else "",
            )

        told = {other["name"] for other in others}
        names = {sibling.full_name: sibling for sibling in siblings if sibling.full_name in told}
        schema = answer_schema(tool, count, names)
        answer = self._client.ask_in_room(asked, Calls, seed, lambda calls: calls.fault(tool, names, there), schema)
        return answer.candidates(tool, count, names, there)

    def compose(self, trajectory: Trajectory, tools: dict[str, Tool], variant: int, seed: int) -> Draft:
        """Write the request; each variant has a style of its own, and every second one is made harder."""
        names = list(STYLES)
        seeded(seed, "styles", trajectory.id).shuffle(names)
        style = names[variant % len(names)]
        difficulty = _difficulty(trajectory, variant)

        def asked(room: int) -> Prompt:
            return prompt(
                "compose",
                "samples",
                tools=fence("tools", [described(tools[name], room) for name in _tools(trajectory)]),
                steps=fence("steps", [_told(trajectory, i, LONG_CHARS // room) for i in range(len(trajectory.steps))]),
                condition=_condition(trajectory),
                checked=trajectory.condition.step if trajectory.condition else 0,
                style=STYLES[style],
                difficulty=difficulty,
            )

        try:
            answer = self._client.ask_in_room(asked, Request, seed, lambda found: found.fault(trajectory, difficulty))
        except AnswerError as error:
            raise AuthorError(str(error)) from error
        return answer.draft(trajectory, style, difficulty)

    def objection(self, trajectory: Trajectory, draft: Draft, tools: dict[str, Tool]) -> str:
        """The model's second opinion, without its first: it sees the request and the calls, and no claim."""

        def asked(room: int) -> Prompt:
            return prompt(
                "objection",
                "samples",
                tools=fence("tools", [described(tools[name], room) for name in _tools(trajectory)]),
                request=fence("request", shortened(draft.request, LONG_CHARS)),
                calls=fence("calls", [_told(trajectory, i) for i in range(len(trajectory.steps))]),
            )

        try:
            opinion = self._client.ask_in_room(asked, Opinion, self._seed)
        except AnswerError as error:
            raise AuthorError(str(error)) from error
        return "" if opinion.agrees else f"objection: {shortened(opinion.reason, 200) or 'the calls are not asked for'}"

    def alternatives(self, tool: Tool, parameter: str, value: Json, seed: int) -> list[tuple[MutationKind, Json]]:
        """Return the model's deviating values; one question a value, whichever sample it stands in.

        The paper asks once for each constraint; we ask for all in one prompt, which costs a fifth.
        """
        if isinstance(value, bool):
            return [("antonym", not value)]
        schema = cleaned(schema_of(tool, parameter))
        place = {"name": shortened(parameter, 100), "schema": schema, "value": value}
        about = {"name": tool.full_name, "description": shortened(tool.description, LONG_CHARS)}
        asked = prompt(
            "alternatives", "negatives", tool=fence("tool", about), parameter=fence("parameter", place), each=EACH
        )
        try:
            answer = self._client.ask(asked, Alternatives, self._seed, lambda found: found.fault(value))
        except AnswerError:
            return []
        return answer.pool(value, EACH)

    def deviating(
        self, request: str, tool: Tool, arguments: dict[str, Json], changes: Sequence[Mutation]
    ) -> list[bool]:
        """The model's own check of its values, without their kinds: would the request be served by this one too?

        A change of which it says nothing is kept out, for nobody vouches for it.
        """
        if not changes:
            return []
        about = {"name": tool.full_name, "description": shortened(tool.description, LONG_CHARS)}
        told = [
            {"number": number, "parameter": change.parameter, "value": cleaned(change.after)}
            for number, change in enumerate(changes, start=1)
        ]
        asked = prompt(
            "fitting",
            "negatives",
            tool=fence("tool", about),
            request=fence("request", shortened(request, LONG_CHARS)),
            call=fence("call", cleaned(arguments)),
            changes=fence("changes", told),
        )
        try:
            verdicts = self._client.ask(asked, Verdicts, self._seed, lambda found: found.fault(len(changes)))
        except AnswerError:
            return [False] * len(changes)
        return verdicts.deviating(len(changes))


def open_author(options: ModelOptions, run: Path, seed: int, paths: Sequence[str], files: ExitStack) -> LLMAuthor:
    """The author of a run: answers and ledger in `RUN/llm_cache`, failures in `RUN/llm_rejected.jsonl`.

    Candidate calls may name the files in the sandbox at `paths`; `files` closes what is written. Raises `UserError`
    for options that cannot be right.
    """
    endpoint = options.endpoint
    price = load_price(options.prices, endpoint.model) if options.prices else None
    cache, rejected = run / "llm_cache", run / "llm_rejected.jsonl"
    client = open_client(endpoint, cache, rejected, files, price=price, limits=options.limits)
    return LLMAuthor(client, seed, paths[:MAX_FILES])


def _tools(trajectory: Trajectory) -> list[str]:
    """Full names of the tools that the request may lead to, each once, the branch not taken included."""
    names = [step.tool for step in trajectory.steps]
    if trajectory.condition:
        names += [trajectory.condition.then_tool, trajectory.condition.else_tool]
    return list(dict.fromkeys(names))


def _difficulty(trajectory: Trajectory, variant: int) -> Difficulty | None:
    """Every second variant rules a value out or corrects one, by turns; only where the user says a value at all."""
    said = sum(len(step.arguments) for step in trajectory.steps) > len(trajectory.edges)
    if variant % 2 == 0 or not said:
        return None
    return "ruled_out" if variant % 4 == 1 else "correction"


def _told(trajectory: Trajectory, index: int, result_chars: int = 0) -> dict[str, Json]:
    """One step for the model: what was called, where each argument comes from and so much of what came back."""
    step: Step = trajectory.steps[index]
    sources = {edge.parameter: edge.source for edge in trajectory.edges if edge.target == index}
    arguments = {
        name: {"value": cleaned(value), "source": f"step {sources[name]}" if name in sources else "user"}
        for name, value in step.arguments.items()
    }
    told = {"step": index, "turn": step.turn, "tool": step.tool, "arguments": arguments}
    return {**told, "result": shortened(step.result, result_chars)} if result_chars else told


def _condition(trajectory: Trajectory) -> str:
    condition = trajectory.condition
    if condition is None:
        return ""
    content = {
        "value": shortened(condition.value, 200),
        "then": {"tool": condition.then_tool, "arguments": cleaned(condition.then_arguments)},
        "else": {"tool": condition.else_tool, "arguments": cleaned(condition.else_arguments)},
        "holds": condition.holds,
    }
    return fence("condition", content)
