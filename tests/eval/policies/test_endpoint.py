"""A model behind an OpenAI-compatible server, which a thread plays."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from eval.policies.base import Prompt
from eval.policies.endpoint import EndpointPolicy, Manner, called, openai_messages
from eval.policies.load import engine, load_policy
from eval.replies.calls import NO_CALL, Call
from synthesis.errors import UserError


def test_openai_messages_tie_results_to_calls(kit: Any) -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [kit.call("a", n=1), kit.call("b")]}
    results = [{"role": "tool", "name": name, "content": name} for name in "ab"]
    user, assistant, first, second = openai_messages([{"role": "user", "content": "go"}, turn, *results])
    assert user == {"role": "user", "content": "go"}
    assert [c["function"]["arguments"] for c in assistant["tool_calls"]] == ['{"n": 1}', "{}"]
    assert [first["tool_call_id"], second["tool_call_id"]] == [c["id"] for c in assistant["tool_calls"]]
    assert first["content"] == "a"


def refusal(body: dict[str, Any], said: str) -> str:
    """What a server has against a request; by the model's name, as such servers do."""
    if body["model"] == "newer" and "max_tokens" in body:
        return "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    if body["model"] == "newer" and "temperature" in body:
        return "Unsupported value: 'temperature' does not support 0."
    if body["model"] == "single" and any(len(m.get("tool_calls") or []) > 1 for m in body["messages"]):
        return "This model only supports single tool-calls at once!"
    if body["model"] == "strict" and "parallel_tool_calls" in body:
        return "Unsupported fields in the request: {'parallel_tool_calls'}"
    if body["model"] == "toolless" and "tools" in body:
        return "toolless does not support tools"
    return {"refused": "the prompt is longer than the context", "gone": "gone"}.get(said, "")


bodies: list[dict[str, Any]] = []
TEXT = 'I look.\n<tool_call>\n{"name": "excel__read", "arguments": {"sheet": "A"}}\n</tool_call>'


class Server(BaseHTTPRequestHandler):
    """Answers like an OpenAI-compatible server, by what the user says."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = body["messages"][-1]["content"]
        problem = refusal(body, said)
        assert self.path == "/v1/chat/completions"
        bodies.append(body)
        if "tools" not in body or said == "in text":
            self.say({"role": "assistant", "content": TEXT}, problem)
            return
        arguments = '{"sheet": "A"' + ("}" if said == "good" else "")
        calls = [
            {
                "id": "1",
                "type": "function",
                "function": {"name": body["tools"][1]["function"]["name"], "arguments": arguments},
            }
        ]
        message = {
            "role": "assistant",
            "content": None if said != "words" else "Hm.",
            "tool_calls": calls if said != "words" else None,
        }
        self.say(message, problem, "length" if said == "broken" else "stop")

    def say(self, message: dict[str, Any], problem: str, finish: str = "stop") -> None:
        choice = {"index": 0, "finish_reason": finish, "message": message}
        status = {"": 200, "gone": 500}.get(problem, 400)
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        payload = json.dumps(answer if status == 200 else {"error": {"message": problem}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1#m"
    server.shutdown()
    server.server_close()


def said(text: str) -> Prompt:
    return Prompt(
        [{"role": "user", "content": text}],
        [{"type": "function", "function": {"name": name}} for name in ("time__convert", "excel__read")],
    )


def test_an_endpoint_answers_in_order_and_bad_replies_are_kept(endpoint: str) -> None:
    pytest.importorskip("openai")
    policy = load_policy(endpoint)
    assert isinstance(policy, EndpointPolicy)
    good, broken, words = policy.reply([said("good"), said("broken"), said("words")])
    assert good.calls == (Call("excel__read", {"sheet": "A"}),)
    assert broken.problem.startswith("unreadable")
    assert broken.truncated
    assert (words.problem, words.text) == (NO_CALL, "Hm.")


def test_a_prompt_that_is_refused_costs_its_own_result(endpoint: str) -> None:
    pytest.importorskip("openai")
    kept: list[int] = []
    refused, good = load_policy(endpoint).reply([said("refused"), said("good")], keep=lambda at, _: kept.append(at))
    assert refused.problem.startswith("the server refused the prompt: ")
    assert "longer than the context" in refused.problem
    assert good.calls
    assert sorted(kept) == [0, 1]
    with pytest.raises(UserError, match=r"every prompt was refused: .*longer than the context"):
        load_policy(endpoint).reply([said("refused")] * 3)


def test_a_server_that_fails_stops_the_evaluation_and_nothing_is_lost(endpoint: str) -> None:
    pytest.importorskip("openai")
    kept: list[int] = []
    policy = EndpointPolicy(endpoint.partition("#")[0], "m", workers=1)
    policy.client = policy.client.with_options(max_retries=0)
    with pytest.raises(UserError, match=r"the server failed: .*gone"):
        policy.reply([said("good"), said("gone"), said("good")], keep=lambda at, _: kept.append(at))
    assert 0 in kept


def test_what_a_server_does_not_know_is_put_otherwise(endpoint: str) -> None:
    pytest.importorskip("openai")
    url = endpoint.partition("#")[0]
    newer = EndpointPolicy(url, "newer")
    assert newer.reply([said("good")])[0].calls
    assert (newer.manner.limit, newer.manner.options) == ("max_completion_tokens", {})
    calls = [{"type": "function", "function": {"name": name, "arguments": {}}} for name in "ab"]
    results = [{"role": "tool", "name": name, "content": name} for name in "ab"]
    history = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    prompt = Prompt([*history, {"role": "user", "content": "good"}], said("good").tools)
    assert EndpointPolicy(url, "single").reply([prompt])[0].calls


def test_several_calls_are_allowed_where_the_server_hears_of_it(endpoint: str) -> None:
    pytest.importorskip("openai")
    url = endpoint.partition("#")[0]
    bodies.clear()
    lax, strict = EndpointPolicy(url, "m"), EndpointPolicy(url, "strict", workers=1)
    assert lax.reply([said("good")])[0].calls
    assert strict.reply([said("good")] * 2)[1].calls
    assert [body.get("parallel_tool_calls") for body in bodies] == [True, True, None, None]
    assert engine(lax) == {"kind": "endpoint", "tools": "as tools", "parallel_tool_calls": "true"}
    assert engine(strict)["parallel_tool_calls"] == "false"


def test_refusals_that_come_at_once_cost_no_prompt() -> None:
    """Several requests are under way before the first refusal: each of them is asked again."""
    manner = Manner({"temperature": 0.0})
    first, second = (manner.request(said("good"), linear=False, longest=9) for _ in range(2))
    refusals = ("Use 'max_completion_tokens'", "'temperature' is not supported", "unknown: parallel_tool_calls")
    for refused in refusals:
        assert manner.yields(first, refused, history=False)
        assert manner.yields(second, refused, history=False)
    assert set(manner.request(said("good"), linear=False, longest=9)) == {"messages", "tools", "max_completion_tokens"}
    assert not manner.yields(manner.request(said("good"), linear=False, longest=9), refusals[0], history=False)


def test_a_server_that_knows_no_tools_is_told_of_them_in_words(endpoint: str, kit: Any) -> None:
    pytest.importorskip("openai")
    policy = EndpointPolicy(endpoint.partition("#")[0], "toolless")
    turn = {"role": "assistant", "content": "", "tool_calls": [kit.call("time__convert", n=1)]}
    system, result = {"role": "system", "content": "Be brief."}, {"role": "tool", "name": "t", "content": "noon"}
    bodies.clear()
    prompt = Prompt([system, {"role": "user", "content": "good"}, turn, result], said("good").tools)
    (reply,) = policy.reply([prompt])
    assert reply.calls == (Call("excel__read", {"sheet": "A"}),)
    told = bodies[-1]["messages"]
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user"]
    assert told[0]["content"].startswith("Be brief.")
    assert '"name": "excel__read"' in told[0]["content"]
    assert '<tool_call>\n{"name": "time__convert", "arguments": {"n": 1}}' in told[2]["content"]
    assert "noon" in told[3]["content"]
    assert engine(policy)["tools"] == "in the prompt"


def test_calls_that_a_server_left_in_the_text_are_read_where_they_are_of_offered_tools(endpoint: str) -> None:
    pytest.importorskip("openai")
    policy = load_policy(endpoint)
    assert policy.reply([said("in text")])[0].calls == (Call("excel__read", {"sheet": "A"}),)
    other = Prompt(said("in text").messages, said("in text").tools[:1])
    assert policy.reply([other])[0].problem == NO_CALL


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]', 1),
        ('{"name": "f", "parameters": {"a": 1}}', 1),
        ('{"name": "g", "parameters": {"a": 1}}', 0),
        ('<tool_call>{"name": "f", "arg</tool_call>', 0),
        ("f is a function", 0),
    ],
)
def test_every_known_form_is_read_from_text(text: str, found: int) -> None:
    message = called({"role": "assistant", "content": text}, [{"function": {"name": "f"}}])
    assert len(message.get("tool_calls") or []) == found
