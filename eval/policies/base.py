"""What is evaluated is a policy: it answers prompts greedily, one reply a prompt, and never drops one.

What can't be answered or read comes back as a reply with a `problem`, which the metrics count as wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.replies.calls import Reply
from synthesis.records import Json

Message = dict[str, Json]
Progress = Callable[[int], None]
"""Called with the number of prompts just answered."""
Keep = Callable[[int, Reply], None]
"""Called with each reply as it comes, and the place of its prompt."""


@dataclass(frozen=True)
class Prompt:
    """What the agent sees before a turn: the messages so far, and the tools on offer in the OpenAI format."""

    messages: list[Message]
    tools: list[dict[str, Json]]


class Policy(Protocol):
    """Anything that answers prompts."""

    name: str
    parallel: bool
    """Whether its prompts have room for several calls in one turn; else tasks come with one call a turn."""

    def reply(self, prompts: Sequence[Prompt], progress: Progress = ..., keep: Keep = ...) -> list[Reply]:
        """One reply a prompt, in the order of the prompts; each is told to `keep` as soon as it is there."""
        ...


def keep_nothing(_at: int, _reply: Reply) -> None:
    """Tell nobody."""


def no_progress(_done: int) -> None:
    """Tell nobody."""
