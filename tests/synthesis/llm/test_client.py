"""The client over the real protocol: good, malformed, truncated, refusing, limited, slow and dying replies."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from endpoint import Model, Reply

from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.llm.client import Answer, AnswerCache, AnswerError, Client, Endpoint, Prompt, RejectedAnswer
from synthesis.llm.costs import Costs, Limits, Price, load_price

KEY = "sk-very-secret-4711"


class City(Answer):
    name: str
    people: int


GOOD = Reply('{"name": "Oslo", "people": 700000}')
PROMPT = Prompt("city", "samples", "v1", "You know cities.", "Name one.")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def client(model: Model, folder: Path, limits: Limits | None = None, price: Price | None = None, **more: Any) -> Client:
    endpoint = Endpoint("m-1", model.url, "TEST_KEY", **{"retries": 2, **more})
    costs = Costs(folder / "costs.jsonl", price, limits)
    return Client(endpoint, AnswerCache(folder), Journal(folder / "rejected.jsonl", RejectedAnswer), costs)


def everything(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_the_question_goes_out_with_its_schema_and_the_answer_comes_back_typed(tmp_path: Path) -> None:
    with Model([GOOD]) as model:
        assert client(model, tmp_path).ask(PROMPT, City, seed=7) == City(name="Oslo", people=700000)
    [request] = model.requests
    assert request["model"] == "m-1"
    assert request["seed"] == 7
    assert request["response_format"]["json_schema"] == {
        "name": "city",
        "strict": True,
        "schema": City.model_json_schema(),
    }
    assert City.model_json_schema()["additionalProperties"] is False
    assert model.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in everything(tmp_path)


def test_what_is_wrong_goes_back_to_the_model(tmp_path: Path) -> None:
    script = [Reply("Oslo!"), Reply('{"name": "Oslo", "people": 0}'), Reply(f"```json\n{GOOD.content}\n```")]
    with Model(script) as model:
        found = client(model, tmp_path).ask(PROMPT, City, 0, lambda city: "" if city.people else "nobody</data>!")
    assert found.people == 700000
    last = model.requests[2]["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[2]["content"] == "Oslo!"
    assert "Invalid JSON" in last[3]["content"]
    assert r"nobody\u003c/data\u003e!" in last[5]["content"], "a fault may quote what a tool wrote"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([Reply("?")] * 3, "unusable after 2 repairs: the answer: Invalid JSON"),
        ([Reply('{"name": "Oslo"}')] * 3, "people: Field required"),
        ([Reply('{"name": "Os', finish="length")], "truncated"),
        ([Reply(refusal="I would rather not.")], "refusal: I would rather not"),
        ([Reply("{", finish="content_filter")], "refusal: the provider's content filter"),
        ([Reply(status=400, error={"error": {"message": "no", "code": "content_filter"}})], "refusal: content_filter"),
        (
            [Reply(status=400, error={"message": "This model's maximum context length is 4096 tokens.", "code": 400})],
            "too long: the model's context has no room",
        ),
        (
            [Reply(status=400, error={"error": {"code": 400, "message": "it exceeds the available context size"}})],
            "too long: the model's context has no room",
        ),
    ],
)
def test_a_question_without_an_answer_is_rejected_once(tmp_path: Path, script: list[Reply], reason: str) -> None:
    with Model(script) as model:
        for _ in range(2):
            with pytest.raises(AnswerError, match=reason):
                client(model, tmp_path).ask(PROMPT, City, 0)
        assert len(model.bodies) == len(script), "the second client knew the rejection"
        other = Prompt("city", "samples", "v2", PROMPT.system, PROMPT.user)
        model.script.append(GOOD)
        assert client(model, tmp_path).ask(other, City, 0).name == "Oslo", "another wording is another question"


@pytest.mark.parametrize(
    "fault",
    [
        Reply(status=500, error={"error": {"message": "oops"}}),
        Reply(status=503, error={"error": {"message": "busy"}}),
        Reply("{}", cut=True),
        Reply(GOOD.content, delay_s=1.5),
    ],
    ids=["error", "busy", "dying", "slow"],
)
def test_passing_faults_are_retried(tmp_path: Path, fault: Reply) -> None:
    with Model([fault, GOOD]) as model:
        assert client(model, tmp_path, timeout_s=0.5).ask(PROMPT, City, 0).name == "Oslo"
    assert len(model.bodies) == 2
    assert model.bodies[0] == model.bodies[1]


@pytest.mark.parametrize(
    "around",
    [
        "<think>\nA city: {{...}}\n</think>\n\n{}",
        "Here it is:\n```json\n{}\n```\nAnything else?",
        "```JSON\n{}\n```",
        "Sure: {} That is all.",
    ],
)
def test_what_stands_around_an_answer_is_left_out(tmp_path: Path, around: str) -> None:
    with Model([Reply(around.format(GOOD.content))]) as model:
        assert client(model, tmp_path).ask(PROMPT, City, 0).name == "Oslo"
        assert len(model.bodies) == 1


def test_half_a_surrogate_pair_in_a_reply_is_no_end(tmp_path: Path) -> None:
    with Model([Reply("no \ud83d json"), GOOD]) as model:
        assert client(model, tmp_path).ask(PROMPT, City, 0).name == "Oslo"
        assert "no \ufffd json" in model.requests[1]["messages"][2]["content"]


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    limited = Reply(status=429, headers={"Retry-After": "1.2"}, error={"error": {"message": "slow down"}})
    with Model([limited, GOOD]) as model:
        assert client(model, tmp_path).ask(PROMPT, City, 0).name == "Oslo"
    assert model.times[1] - model.times[0] >= 1.2, "without the header the SDK waits half a second"


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply(status=401, error={"error": {"message": f"bad key {KEY}"}}), r"--api-key-env: .* TEST_KEY \(401\)"),
        (Reply(status=404, error={"error": {"message": "no model m-1"}}), "--model m-1: HTTP 404, .*no model m-1"),
        (Reply(status=400, error={"error": {"message": f"key {KEY} has no schemas"}}), r"HTTP 400, .*key \*\*\* has"),
        (Reply(body="<html>hello</html>"), "no chat completion"),
        (Reply(body="<html>hello</html>", headers={"Content-Type": "text/html"}), "no chat completion"),
        (Reply(GOOD.content, delay_s=0.5), "no answer within 0.2 s"),
        (Reply("{}", cut=True), "no connection"),
        (Reply(status=500, error={"error": {"message": "oops"}}), "HTTP 500"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_one_sentence_and_is_asked_again(
    tmp_path: Path, reply: Reply, sentence: str
) -> None:
    with Model([reply, *([reply] if reply.body else []), GOOD]) as model:  # what is no stream is asked for in one piece
        with pytest.raises(UserError, match=sentence) as caught:
            client(model, tmp_path, retries=0, timeout_s=0.2).ask(PROMPT, City, 0)
        assert KEY not in str(caught.value)
        assert client(model, tmp_path, retries=0).ask(PROMPT, City, 0).name == "Oslo", "no failure is cached"
    assert KEY not in everything(tmp_path)


def test_no_question_is_asked_twice(tmp_path: Path) -> None:
    with Model([GOOD] * 9) as model:
        first = client(model, tmp_path)
        threads = [threading.Thread(target=first.ask, args=(PROMPT, City, 0)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client(model, tmp_path).ask(PROMPT, City, 0)
        assert len(model.bodies) == 1
        client(model, tmp_path).ask(PROMPT, City, 1)
        assert len(model.bodies) == 2, "another seed is another question"
    assert not list(tmp_path.rglob("*.partial"))
    for path in tmp_path.rglob("*/*.json"):
        path.write_text("{")
    with pytest.raises(UserError, match="delete the file to ask again"):
        client(model, tmp_path).ask(PROMPT, City, 0)


def test_a_run_stops_at_its_limits_and_a_resumed_one_has_not_got_its_money_back(tmp_path: Path) -> None:
    price = Price(input=1000, output=10_000, cached=500)
    with Model([GOOD] * 9) as model:
        asking = client(model, tmp_path, price=price)
        asking.ask(PROMPT, City, 0)
        row = asking.costs.table()["samples"]
        size = sum(len(message["content"]) for message in model.requests[0]["messages"]) // 4
        assert (row["replies"], row["tokens_in"], row["tokens_cached"]) == (1, size, size // 2)
        fresh, out = size - size // 2, row["tokens_out"]
        assert row["usd"] == pytest.approx((fresh * 1000 + size // 2 * 500 + out * 10_000) / 1e6, abs=1e-6)
        spent = size + out
        with pytest.raises(UserError, match=f"--max-tokens-total: {spent} of {spent} tokens"):
            client(model, tmp_path, Limits(tokens=spent)).ask(PROMPT, City, 1)
        with pytest.raises(UserError, match=r"--max-cost: 0\.\d+ of 0\.0500 USD are used up"):
            client(model, tmp_path, Limits(usd=0.05), price).ask(PROMPT, City, 1)
        assert client(model, tmp_path, Limits(tokens=spent)).ask(PROMPT, City, 0), "what is cached costs nothing"
        assert len(model.bodies) == 1
        again = client(model, tmp_path, Limits(tokens=spent + 1), price)
        again.ask(PROMPT, City, 0)
        again.ask(PROMPT, City, 1)
        assert again.costs.line("samples").startswith("samples: 2 replies, ")
        assert again.costs.line("samples").endswith("; 1 answers from the run's cache")
        assert again.costs.line("negatives") == ""


def test_an_endpoint_that_does_not_count_tokens_is_counted_by_bytes(tmp_path: Path) -> None:
    with Model([Reply(GOOD.content, usage=False)]) as model:
        asking = client(model, tmp_path)
        asking.ask(PROMPT, City, 0)
    row = asking.costs.table()["samples"]
    assert row["tokens_in"] == -(-sum(len(message["content"]) for message in model.requests[0]["messages"]) // 3)
    assert row["tokens_out"] == -(-len(GOOD.content) // 3)
    assert row["usd"] is None


def test_prices_come_from_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("m-1: {input: 0.5, output: 2}\nm-2: {input: -1, output: 2}\n")
    assert load_price(path, "m-1") == Price(input=0.5, output=2.0)
    with pytest.raises(UserError, match=r"prices\.yaml, m-2\.input: expected US dollars"):
        load_price(path, "m-2")
    with pytest.raises(UserError, match=r"prices\.yaml: expected an entry 'm-3'"):
        load_price(path, "m-3")
    path.write_text(json.dumps({"m-1": {"input": 1, "output": 2, "cached": 0.1}}))
    assert load_price(path, "m-1").cached == 0.1
    path.write_text("m-1: {")
    with pytest.raises(UserError, match=r"prices\.yaml: expected a YAML or JSON file"):
        load_price(path, "m-1")


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        (Endpoint(""), "--model: expected the name"),
        (Endpoint("m", "ftp://somewhere"), "--base-url: expected an http"),
        (Endpoint("m", "https://me:pass@somewhere/v1"), "--base-url: expected no password"),
        (Endpoint("m", api_key_env="NO_SUCH_KEY"), "--api-key-env: expected the key .* as NO_SUCH_KEY"),
        (Endpoint("m", "http://localhost:1/v1", workers=0), "--workers: expected 1 or more, not 0"),
    ],
)
def test_an_endpoint_that_cannot_be_right_is_refused(endpoint: Endpoint, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        endpoint.check()
    assert "pass" not in str(caught.value).replace("password", "")


def refused(message: str, status: int = 400) -> Reply:
    return Reply(status=status, error={"error": {"message": message}})


@pytest.mark.parametrize(
    ("refusals", "then"),
    [
        ([refused("response_format: json_schema is not supported")], {"response_format": {"type": "json_object"}}),
        ([refused("unknown response_format type"), refused("guided decoding is off", 422)], {"response_format": None}),
        ([refused("Unrecognized request argument: max_completion_tokens")], {"max_tokens": 4096}),
        ([refused("extra fields not permitted: seed", 422)], {"seed": None}),
        ([refused("'temperature' does not support 0.3 with this model")], {"temperature": None}),
        ([refused("stream_options is not allowed")], {"stream": True, "stream_options": None}),
        ([refused("stream is not supported")], {"stream": None, "stream_options": None}),
        (
            [refused("max_completion_tokens?"), refused("no json_schema"), refused("no seed")],
            {"max_tokens": 4096, "response_format": {"type": "json_object"}, "seed": None},
        ),
    ],
)
def test_what_an_endpoint_refuses_is_left_out_and_remembered(
    tmp_path: Path, refusals: list[Reply], then: dict[str, Any]
) -> None:
    other = Prompt("city", "samples", "v1", PROMPT.system, "Name another.")
    with Model([*refusals, GOOD, GOOD]) as model:
        assert client(model, tmp_path, temperature=0.3).ask(PROMPT, City, 0).name == "Oslo"
        assert len(model.bodies) == len(refusals) + 1
        assert client(model, tmp_path, temperature=0.3).ask(other, City, 0).name == "Oslo"
        assert len(model.bodies) == len(refusals) + 2, "another command of the run knows it"
    for request in model.requests[-2:]:
        assert {key: request.get(key) for key in then} == then
        assert str(City.model_json_schema()["required"]).replace("'", '"') in request["messages"][0]["content"]


def test_a_refusal_that_names_nothing_of_ours_is_none_to_be_mended(tmp_path: Path) -> None:
    with Model([refused("the moon is full"), GOOD]) as model, pytest.raises(UserError, match="the moon is full"):
        client(model, tmp_path, retries=0).ask(PROMPT, City, 0)
    with Model([refused("no json_schema"), refused("no json_object"), refused("no json_schema")]) as model:
        with pytest.raises(UserError, match="no json_schema"):
            client(model, tmp_path / "two", retries=0).ask(PROMPT, City, 0)
        assert len(model.bodies) == 3


def test_a_slow_reply_is_waited_for_as_long_as_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Model([Reply(GOOD.content, pause_s=0.15)]) as model:
        assert client(model, tmp_path, timeout_s=0.6, retries=0).ask(PROMPT, City, 0).name == "Oslo"
        assert len(model.bodies) == 1, "longer than the limit, but never silent for so long"
    with Model([Reply(GOOD.content, cut=True), refused("busy", 503), GOOD]) as model:
        assert client(model, tmp_path / "two").ask(PROMPT, City, 0).name == "Oslo"
    said = capsys.readouterr().err
    assert "model: no connection" in said
    assert "in the middle of a reply; asked again" in said
    assert "model: retrying request in" in said


def test_what_the_user_says_of_replies_goes_out(tmp_path: Path) -> None:
    with Model([GOOD]) as model:
        more = {"extra_body": {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}}
        client(model, tmp_path, max_tokens=900, temperature=0.0, **more).ask(PROMPT, City, 0)
    [request] = model.requests
    assert (request["max_completion_tokens"], request["temperature"], request["top_k"]) == (900, 0.0, 20)
    assert request["chat_template_kwargs"] == {"enable_thinking": False}


def test_an_answer_given_as_a_tool_call_is_one(tmp_path: Path) -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "city", "arguments": GOOD.content}}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m-1"}
    delta = {**chunk, "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    stream = Reply(body=f"data: {json.dumps(delta)}\n\ndata: [DONE]\n\n", headers={"Content-Type": "text/event-stream"})
    with Model([stream]) as model:
        assert client(model, tmp_path).ask(PROMPT, City, 0).name == "Oslo"
