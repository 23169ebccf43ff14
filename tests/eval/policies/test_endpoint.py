"""A model behind an OpenAI-compatible server, which a thread plays."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from eval.policies.base import Prompt
from eval.policies.endpoint import EndpointPolicy, openai_messages
from eval.policies.load import load_policy
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


class Server(BaseHTTPRequestHandler):
    """Answers like an OpenAI-compatible server, by what the user says."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = body["messages"][-1]["content"]
        assert body["temperature"] == 0
        assert self.path == "/v1/chat/completions"
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
        choice = {"index": 0, "finish_reason": "length" if said == "broken" else "stop", "message": message}
        status = 400 if said == "refused" else 200
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        payload = json.dumps(answer if status == 200 else {"error": {"message": "no such model"}}).encode()
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


def test_a_server_that_fails_stops_the_evaluation(endpoint: str) -> None:
    pytest.importorskip("openai")
    with pytest.raises(UserError, match=r"server failed: .*no such model"):
        load_policy(endpoint).reply([said("good"), said("refused")])
