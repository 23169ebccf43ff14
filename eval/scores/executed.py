"""The executed verdict: whether what the agent did comes to the same as the right calls, whatever way it went.

The paper compares arguments. Here the real servers are asked: the right calls are made in a clean sandbox, the agent's
in another, and both are compared by what they leave in files and by what the agent got to read. So an equivalent other
way counts, and a call that merely looks alike does not. (Ours.)
"""

from collections.abc import Sequence
from itertools import groupby

from eval.replies.calls import Call, Toolbox
from synthesis.records import Json, Record

TELLING = 20
"""Characters from which on a result says enough that another tool of the server giving it counts as the same look."""


class MadeCall(Record):
    """One call that was made, and what came back."""

    turn: int
    name: str
    server: str
    """Empty where no server has such a tool."""
    arguments: dict[str, Json]
    result: str
    """The whole result; the agent saw a shortened one."""
    is_error: bool = False
    """By the rules that the synthesis judges calls by: some servers say an error in plain words."""
    changes: bool = False
    """Whether the tool is one that may change something."""


class Outcome(Record):
    """What calls, made in a clean sandbox, came to."""

    made: list[MadeCall]
    state: str
    """Digest of what they changed in files; empty for nothing."""


def same_outcome(gold: Outcome, agent: Outcome, remembering: frozenset[str], tools: Toolbox) -> bool:
    """Whether the agent's calls come to the same as the right ones.

    - Its files are as those of the right calls.
    - Of each right call that only looks, the agent got to read the same: by the same tool, or by another of its server
      where the result says enough.
    - Servers that hold state in memory, `remembering`, cannot be looked into: there the calls that change something are
      the same, turn by turn, and no other was made.
    """
    looks = [right for right in gold.made if not right.changes]
    return (
        gold.state == agent.state
        and all(any(_same_look(right, made) for made in agent.made) for right in looks)
        and _same_changes(gold.made, agent.made, remembering, tools)
    )


def _same_look(right: MadeCall, made: MadeCall) -> bool:
    if made.is_error or made.result != right.result:
        return False
    return made.name == right.name or (made.server == right.server and len(right.result) >= TELLING)


def _same_changes(
    gold: Sequence[MadeCall], agent: Sequence[MadeCall], remembering: frozenset[str], tools: Toolbox
) -> bool:
    """Whether the calls that changed a server's memory are the same: in order, but for those of one right turn."""
    made = [call for call in agent if call.changes and call.server in remembering and not call.is_error]
    wanted = [call for call in gold if call.changes and call.server in remembering]
    for _, turn in groupby(wanted, key=lambda call: call.turn):
        block = list(turn)
        now, made = made[: len(block)], made[len(block) :]
        for right in block:
            twin = next((call for call in now if tools.same(_call(right), _call(call))), None)
            if twin is None:
                return False
            now.remove(twin)
    return not made


def _call(made: MadeCall) -> Call:
    return Call(made.name, made.arguments)
