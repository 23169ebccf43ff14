"""The LLM author: any OpenAI-compatible model invents calls, writes requests, checks them, and names deviating values.

The four prompts follow RISE, sections 3.2.1, 3.2.3 and 3.3.2; their wording is ours, the paper's is not known.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from synthesis.authors.base import AuthorError, Candidate, Draft
from synthesis.authors.llm.answers import Alternatives, Opinion, Request
from synthesis.authors.llm.calls import Calls
from synthesis.authors.llm.prompting import LONG_CHARS, described, offered, prompt
from synthesis.journal import Journal
from synthesis.llm.client import AnswerCache, AnswerError, Client, ModelOptions, RejectedAnswer
from synthesis.llm.costs import Costs, load_price
from synthesis.llm.fencing import cleaned, fence
from synthesis.records import Difficulty, Json, MutationKind, Step, Tool, Trajectory
from synthesis.schemas import schema_of
from synthesis.seeds import seeded
from synthesis.text.visible import shortened

MAX_FILES = 200
"""Files of the sandbox that a prompt names."""
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

        None come back where the model fails.
        """
        others = offered(siblings, tool)
        asked = prompt(
            "candidates",
            "primitives",
            tool=fence("tool", described(tool)),
            count=count,
            files=fence("files", cleaned(self._files)) if self._files else "",
            siblings=fence("siblings", others) if others else "",
        )
        names = {other["name"] for other in others}
        try:
            return self._client.ask(asked, Calls, seed, lambda calls: calls.fault(tool, names)).candidates(tool, count)
        except AnswerError:
            return []

    def compose(self, trajectory: Trajectory, tools: dict[str, Tool], variant: int, seed: int) -> Draft:
        """Write the request; each variant has a style of its own, and every second one is made harder."""
        names = list(STYLES)
        seeded(seed, "styles", trajectory.id).shuffle(names)
        style = names[variant % len(names)]
        difficulty = _difficulty(trajectory, variant)
        asked = prompt(
            "compose",
            "samples",
            tools=fence("tools", [described(tools[name]) for name in _tools(trajectory)]),
            steps=fence("steps", [_told(trajectory, i, results=True) for i in range(len(trajectory.steps))]),
            condition=_condition(trajectory),
            checked=trajectory.condition.step if trajectory.condition else 0,
            style=STYLES[style],
            difficulty=difficulty,
        )
        try:
            answer = self._client.ask(asked, Request, seed, lambda found: found.fault(trajectory, difficulty))
        except AnswerError as error:
            raise AuthorError(str(error)) from error
        return answer.draft(trajectory, style, difficulty)

    def objection(self, trajectory: Trajectory, draft: Draft, tools: dict[str, Tool]) -> str:
        """The model's second opinion, without its first: it sees the request and the calls, and no claim."""
        asked = prompt(
            "objection",
            "samples",
            tools=fence("tools", [described(tools[name]) for name in _tools(trajectory)]),
            request=fence("request", shortened(draft.request, LONG_CHARS)),
            calls=fence("calls", [_told(trajectory, i, results=False) for i in range(len(trajectory.steps))]),
        )
        try:
            opinion = self._client.ask(asked, Opinion, self._seed)
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


def open_author(options: ModelOptions, run: Path, seed: int, paths: Sequence[str], files: ExitStack) -> LLMAuthor:
    """The author of a run: answers and ledger in `RUN/llm_cache`, failures in `RUN/llm_rejected.jsonl`.

    Candidate calls may name the files in the sandbox at `paths`; `files` closes what is written. Raises `UserError`
    for options that cannot be right.
    """
    endpoint, cache = options.endpoint, run / "llm_cache"
    price = load_price(options.prices, endpoint.model) if options.prices else None
    costs = files.enter_context(closing(Costs(cache / "costs.jsonl", price, options.limits)))
    rejected = files.enter_context(Journal(run / "llm_rejected.jsonl", RejectedAnswer))
    return LLMAuthor(Client(endpoint, AnswerCache(cache), rejected, costs), seed, paths[:MAX_FILES])


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


def _told(trajectory: Trajectory, index: int, results: bool) -> dict[str, Json]:
    """One step for the model: what was called, where each argument comes from and, if `results`, what came back."""
    step: Step = trajectory.steps[index]
    sources = {edge.parameter: edge.source for edge in trajectory.edges if edge.target == index}
    arguments = {
        name: {"value": cleaned(value), "source": f"step {sources[name]}" if name in sources else "user"}
        for name, value in step.arguments.items()
    }
    told = {"step": index, "turn": step.turn, "tool": step.tool, "arguments": arguments}
    return {**told, "result": shortened(step.result, LONG_CHARS)} if results else told


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
