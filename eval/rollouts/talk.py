"""One task in the closed loop: what was said and called so far, and whether it goes on."""

import time
from dataclasses import dataclass, field
from typing import Literal

from eval.policies.base import Message, Prompt
from eval.replies.calls import NO_CALL, Call, Reply, Toolbox
from eval.replies.one_call_a_turn import linear_messages
from eval.scores.executed import MadeCall
from synthesis.records import Json

Ending = Literal["words", "unreadable", "cut", "turns", "seconds", "fault"]
"""How a talk ended: with an answer in words; a reply that could not be read, or was cut off at the token limit; a limit
of turns or seconds; a server that failed."""


@dataclass(frozen=True)
class Limits:
    """Where a talk is ended: turns of the agent, and seconds from its first prompt."""

    turns: int = 10
    seconds: float = 600.0


@dataclass
class Talk:
    """The conversation of one task. The agent sees `prompt()`, its answer goes to `hear`, results to `tell`."""

    opening: list[Message]
    """What stands before the agent's first turn: system prompt and request."""
    tools: list[dict[str, Json]]
    parallel: bool
    """Whether the agent's template has room for several calls in one turn."""
    limits: Limits
    messages: list[Message] = field(default_factory=list)
    made: list[MadeCall] = field(default_factory=list)
    turns: int = 0
    ending: Ending | None = None
    fault: str = ""
    replies: list[Reply] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.messages = list(self.opening)
        self.offered = Toolbox(self.tools)

    def prompt(self) -> Prompt:
        """What the agent sees before its next turn."""
        return Prompt(self.messages if self.parallel else linear_messages(self.messages), self.tools)

    def hear(self, reply: Reply) -> tuple[Call, ...]:
        """Take the agent's answer; returns the calls to be made, none where the talk is over."""
        self.turns += 1
        self.replies.append(reply)
        if reply.problem:
            self.messages.append({"role": "assistant", "content": reply.text})
            words = reply.problem == NO_CALL
            self.ending = "cut" if reply.truncated else "words" if words else "unreadable"
            return ()
        calls = [{"type": "function", "function": call.as_dict()} for call in reply.calls]
        self.messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        return reply.calls

    def tell(self, call: MadeCall, seen: str) -> None:
        """Take what came back from a call, of which the agent sees `seen`."""
        self.made.append(call)
        self.messages.append({"role": "tool", "name": call.name, "content": seen})

    def limit(self) -> None:
        """End the talk where it has come to a limit; to be asked after each turn."""
        if self.ending is None and self.turns >= self.limits.turns:
            self.ending = "turns"
        elif self.ending is None and time.monotonic() - self.started > self.limits.seconds:
            self.ending = "seconds"

    def as_dict(self) -> dict[str, Json]:
        """The talk as JSON."""
        made = [call.model_dump() for call in self.made]
        return {"messages": self.messages, "calls": made, "ending": self.ending, "fault": self.fault}
