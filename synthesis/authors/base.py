"""What an author does: invent candidate calls, put a trajectory into words, and name values that deviate.

The rest of the synthesis knows only this protocol; an author writes from rules (`offline`) or asks a language model.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from synthesis.records import (
    CriticalParameter,
    Difficulty,
    Distractor,
    Json,
    Mutation,
    MutationKind,
    Record,
    Tool,
    Trajectory,
)

Coverage = Literal["required", "some", "all"]


class Candidate(Record):
    """A call worth trying, before anyone has run it.

    A value in `arguments` or in a setup call's arguments may be `{"$result": i, "$pattern": "regex"}`: it stands for
    the first match of the pattern in the result of setup call `i`, and is known only when that call has run.
    """

    tool: str
    """The tool's full name."""
    arguments: dict[str, Json]
    setup: list[dict[str, Json]] = Field(default_factory=list)
    """Calls that come first, in the same fresh sandbox: `{"tool": full_name, "arguments": {...}}`."""
    coverage: Coverage


class Draft(Record):
    """A request for a trajectory, as the author wrote it, with the author's claims about its critical parameters."""

    request: str
    response: str
    """The assistant's closing message."""
    style: str
    critical: list[CriticalParameter]
    """The author's verdicts (`by_author`), each with its evidence; `critical.ground` adds the rule's verdict."""
    difficulty: list[Difficulty] = Field(default_factory=list)
    distractors: list[Distractor] = Field(default_factory=list)
    intentions: list[str] = Field(default_factory=list)
    """One a step: the words of the request that ask for it."""


class AuthorError(Exception):
    """The author has no usable text for this request; the text says why, and becomes the reason of a rejection."""


class Author(Protocol):
    """Who writes the text. Every method is a pure function of its arguments and of what the author was made with."""

    name: str
    workers: int
    """How many calls of the methods may run at a time, each in a thread of its own."""

    def candidates(self, tool: Tool, count: int, seed: int, siblings: Sequence[Tool] = ()) -> list[Candidate]:
        """Return at most `count` distinct calls of `tool`, of mixed coverage; fewer where the author knows fewer.

        `siblings` are the other tools of its server that may run: setup calls may be theirs.
        """
        ...

    def compose(self, trajectory: Trajectory, tools: dict[str, Tool], variant: int, seed: int) -> Draft:
        """Put `trajectory` into a user's words.

        `tools` is keyed by full name. Each `variant` speaks in another style. Arguments that come from an earlier
        result (`trajectory.edges`) are referred to ("that deck"), never said. Raises `AuthorError` where it cannot.
        """
        ...

    def objection(self, trajectory: Trajectory, draft: Draft, tools: dict[str, Tool]) -> str:
        """Say why the draft's request does not ask for exactly this trajectory; an empty string where it does."""
        ...

    def alternatives(self, tool: Tool, parameter: str, value: Json, seed: int) -> list[tuple[MutationKind, Json]]:
        """Return the single-site mutation pool of one parameter: deviating values of the same type, kind by kind.

        Deletion and combination are not in it: they need no author.
        """
        ...

    def deviating(
        self, request: str, tool: Tool, arguments: dict[str, Json], changes: Sequence[Mutation]
    ) -> list[bool]:
        """Tell of each change to a call whether it makes another call than `request` asks for; False keeps it out.

        The call with `arguments` is right; each change is one of `alternatives`, alone.
        """
        ...


def is_reference(value: Any) -> bool:
    """Tell whether `value` stands for a piece of a setup call's result (see `Candidate`)."""
    return isinstance(value, dict) and "$result" in value
