"""Requests of one's own, played on real servers."""

import json
from pathlib import Path

import pytest

from eval.policies import scripted
from eval.policies.base import Prompt
from eval.replies.calls import NO_CALL, Call, Reply
from eval.rollouts.requests import play_requests
from eval.rollouts.talk import Limits, Talk
from synthesis.errors import UserError

CALCULATOR = Path(__file__).parents[3] / ".servers" / "mcp1" / "bin" / "mcp-server-calculator"


@pytest.fixture
def servers(tmp_path: Path) -> Path:
    entry = {"command": str(CALCULATOR), "rise": {"allow": "all", "state": "none"}}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"calculator": entry}}))
    return path


def counts(prompt: Prompt) -> Reply:
    """Calculates what the user says, then answers with the result."""
    last = prompt.messages[-1]
    if last["role"] == "user":
        return Reply("", (Call("calculator__calculate", {"expression": last["content"]}),))
    return Reply(f"It is {last['content']}.", problem=NO_CALL)


def test_each_request_is_acted_on_and_told_when_it_has_ended(servers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scripted.RULES, "policy:counts", counts)
    told: list[Talk] = []
    talks = play_requests("policy:counts", servers, ["7 * 26", "1 / 0"], told.append)
    assert told == talks
    assert [talk.messages[-1]["content"][:9] for talk in talks] == ["It is 182", "It is Err"]
    assert [talk.made[0].is_error for talk in talks] == [False, True]
    assert [talk.ending for talk in talks] == ["words", "words"]
    assert json.loads(json.dumps(talks[0].as_dict()))["calls"][0]["result"] == "182"


def test_limits_and_unknown_tools_are_said(servers: Path) -> None:
    (talk,) = play_requests(
        "policy:first_tool", servers, ["?"], lambda _: None, tools=["calculator__calculate"], limits=Limits(turns=2)
    )
    assert (talk.ending, len(talk.made)) == ("turns", 2)
    with pytest.raises(UserError, match="--tool calculator__add: no server has such a tool that may run"):
        play_requests("policy:no_op", servers, ["?"], lambda _: None, tools=["calculator__add"])
