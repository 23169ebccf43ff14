"""Requests of one's own, played on running servers: what a model does there, seen before anything is scored."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from eval.policies.load import load_policy
from eval.rollouts.live import RESULT_CHARS, Play, Room, Together
from eval.rollouts.talk import Limits, Talk
from synthesis.errors import UserError
from synthesis.servers.mcp_config import load_servers
from synthesis.servers.server_set import Servers


def play_requests(
    model: str,
    servers: Path,
    requests: Sequence[str],
    tell: Callable[[Talk], None],
    *,
    tools: Sequence[str] = (),
    limits: Limits | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
) -> list[Talk]:
    """Let a model act on each request, one after the other, each in a clean sandbox.

    Args:
        model: as `eval.rollouts.decisions.evaluate` takes it.
        tell: called with each talk when it has ended.
        tools: full names of the tools on offer; all that may run by default.

    Raises:
        UserError: a model or servers file that cannot be used, or a tool that no server has.
    """
    policy = load_policy(model, max_new_tokens=max_new_tokens, temperature=temperature)
    play = Play(policy, load_servers(servers), limits or Limits(), RESULT_CHARS)
    return asyncio.run(_play(play, requests, tools, tell))


async def _play(play: Play, requests: Sequence[str], tools: Sequence[str], tell: Callable[[Talk], None]) -> list[Talk]:
    talks, asking = [], Together(play.policy)
    async with AsyncExitStack() as running:
        room = Room(await running.enter_async_context(Servers(play.file)))
        known = room.servers.tools
        if unknown := [name for name in tools if name not in known]:
            raise UserError(f"--tool {unknown[0]}: no server has such a tool that may run; see `rise servers list`")
        specs = [known[name].spec() for name in tools or known]
        for request in requests:
            opening = [{"role": "user", "content": request}]
            talks.append(Talk(opening, specs, play.policy.parallel, play.limits))
            await play.converse(room, talks[-1], asking)
            tell(talks[-1])
    return talks
