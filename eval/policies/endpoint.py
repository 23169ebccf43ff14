"""A model behind an OpenAI-compatible server."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.policies.base import Keep, Message, Progress, Prompt, keep_nothing, no_progress
from eval.replies.calls import Reply, read_reply
from eval.replies.one_call_a_turn import linear_messages
from eval.replies.wire_formats import hermes, llama, mistral
from synthesis.errors import UserError
from synthesis.records import Json

REFUSED = "the server refused the prompt: "
TRIES = 6
TOOLS = """You may call the functions below. For each call answer with one block, and with nothing beside the blocks:
<tool_call>
{"name": "the function", "arguments": {"parameter": "value"}}
</tool_call>
Where no function is of use, or all is done, answer in words. Results come as <tool_response>. The functions:"""


class EndpointPolicy:
    """Decoding by any OpenAI-compatible server, vLLM for one, greedy but for a temperature; needs the extra `llm`.

    Args:
        url: base URL, ending in /v1 as a rule. The key comes from OPENAI_API_KEY, where the server wants one.
        model: the model's name at the server.
        max_new_tokens: length at which a reply is cut off.
        workers: requests under way at a time.
        temperature: 0 is greedy.
    """

    def __init__(
        self, url: str, model: str, max_new_tokens: int = 256, workers: int = 8, temperature: float = 0.0
    ) -> None:
        import os

        try:
            from openai import OpenAI
        except ImportError as error:
            raise UserError("evaluating a server needs the extra `llm`: pip install 'rise-train[llm]'") from error
        self.name = f"{url}#{model}"
        self.parallel = True  # the server's own business
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.workers = workers
        self.manner = Manner({"temperature": temperature})
        self.client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=4)

    def reply(
        self, prompts: Sequence[Prompt], progress: Progress = no_progress, keep: Keep = keep_nothing
    ) -> list[Reply]:
        """Answer the prompts; one that the server refuses is a reply with a `problem`.

        Raises:
            UserError: the server fails, refuses everything, or couldn't be reached after several tries: its failure is
                not the model's.
        """
        from concurrent.futures import ThreadPoolExecutor, as_completed

        replies: dict[int, Reply] = {}
        refused: list[tuple[int, Reply]] = []
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = {pool.submit(self._one, prompt): at for at, prompt in enumerate(prompts)}
            try:
                for done in as_completed(waiting):
                    at, reply = waiting[done], done.result()
                    replies[at] = reply
                    if reply.problem.startswith(REFUSED):
                        refused.append((at, reply))
                    else:
                        keep(at, reply)
                    progress(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if refused and len(refused) == len(prompts):
            raise UserError(f"{self.name}: every prompt was refused: {refused[0][1].problem.removeprefix(REFUSED)}")
        for at, reply in refused:
            keep(at, reply)
        return [replies[at] for at in range(len(prompts))]

    def _one(self, prompt: Prompt) -> Reply:
        from openai import APIError, BadRequestError, UnprocessableEntityError

        try:
            answer = self._ask(prompt)
        except (BadRequestError, UnprocessableEntityError) as error:
            return Reply("", problem=REFUSED + _line(error))
        except APIError as error:
            if getattr(error, "status_code", None) == 413:
                return Reply("", problem=REFUSED + _line(error))
            raise UserError(f"{self.name}: the server failed: {_line(error)}") from error
        if not answer.choices:
            raise UserError(f"{self.name}: the server answered without a choice")
        message = answer.choices[0].message.model_dump()
        text = message.get("content") or json.dumps(message.get("tool_calls") or [])
        return read_reply(
            text, lambda _text: called(message, prompt.tools), answer.choices[0].finish_reason == "length"
        )

    def _ask(self, prompt: Prompt) -> Any:
        """One request, in the words that this server takes: what it says it does not know is put otherwise."""
        from openai import BadRequestError, UnprocessableEntityError

        create: Any = self.client.chat.completions.create
        linear = False
        for _ in range(TRIES):
            request = self.manner.request(prompt, linear, self.max_new_tokens)
            try:
                return create(model=self.model, **request)
            except (BadRequestError, UnprocessableEntityError) as error:
                many = any(len(message.get("tool_calls") or []) > 1 for message in request["messages"])
                if self.manner.yields(request, str(error), many and not linear):
                    continue
                if not (many and "tool" in str(error)):
                    raise
                linear = True
        raise AssertionError("each of them can be put otherwise once")


@dataclass
class Manner:
    """What a server takes: as most do at first, then without what it refuses.

    Newer OpenAI models want `max_completion_tokens` and no temperature; llama.cpp answers with several calls only where
    it is told that it may, which `transformers serve` refuses to hear; and some servers know no tools at all.
    """

    options: dict[str, Any]
    limit: str = "max_tokens"
    parallel: bool = True
    """Whether it is told that several calls may come in one turn."""
    prompted: bool = False
    """Whether tools are told in the prompt, because the server knows none."""

    def request(self, prompt: Prompt, linear: bool, longest: int) -> dict[str, Any]:
        """What is asked, of at most `longest` tokens; `linear`: with one call a turn in the history."""
        messages = linear_messages(prompt.messages) if linear else prompt.messages
        asked = {self.limit: longest, **self.options}
        if not prompt.tools:
            return {"messages": openai_messages(messages), **asked}
        if self.prompted:
            return {"messages": in_words(messages, prompt.tools), **asked}
        told = {"parallel_tool_calls": True} if self.parallel else {}
        return {"messages": openai_messages(messages), "tools": prompt.tools, **told, **asked}

    def yields(self, asked: Mapping[str, Any], said: str, history: bool) -> bool:
        """Change what a refusal of `asked` names, though another thread may have; False where it is nothing of ours.

        `history`: a refusal that speaks of tools may mean several calls in one turn of the history.
        """
        if "max_completion_tokens" in said and "max_tokens" in asked:
            self.limit = "max_completion_tokens"
        elif "temperature" in said and "temperature" in asked:
            self.options = {}
        elif "parallel_tool_calls" in said and "parallel_tool_calls" in asked:
            self.parallel = False
        elif "tool" in said.lower() and "tools" in asked and not history:
            self.prompted = True
        else:
            return False
        return True

    def as_dict(self) -> dict[str, str]:
        """What the result file says of it."""
        told = "in the prompt" if self.prompted else "as tools"
        return {"tools": told, "parallel_tool_calls": str(self.parallel and not self.prompted).lower()}


def called(message: dict[str, Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The message with the calls that its text holds, where a server did not read them.

    In one of the forms that backbones are known to write, and only of tools that were offered: a server without a
    parser for its model's form hands the text through.
    """
    text, offered = message.get("content") or "", {tool["function"]["name"] for tool in tools}
    if message.get("tool_calls") or not text or not offered:
        return message
    for read in (hermes, mistral, llama):
        try:
            calls = read(text)
        except ValueError:
            continue
        if calls and all(call.get("function", call).get("name") in offered for call in calls):
            return {**message, "tool_calls": calls}
    return message


def in_words(messages: Sequence[Message], tools: Sequence[Mapping[str, Json]]) -> list[Message]:
    """The conversation for a server that knows no tools: they stand in the system prompt, calls and results in text."""
    listed = "\n".join(json.dumps(tool) for tool in tools)
    system = "\n\n".join(str(message["content"]) for message in messages if message["role"] == "system")
    told: list[Message] = [{"role": "system", "content": f"{system}\n\n{TOOLS}\n{listed}".strip()}]
    for message in messages:
        if message["role"] == "tool":
            told.append({"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"})
        elif message.get("tool_calls"):
            blocks = [f"<tool_call>\n{json.dumps(call['function'])}\n</tool_call>" for call in message["tool_calls"]]
            told.append({"role": "assistant", "content": "\n".join([message.get("content") or "", *blocks]).strip()})
        elif message["role"] != "system":
            told.append(dict(message))
    return told


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def openai_messages(messages: Sequence[Message]) -> list[Message]:
    """Messages as the OpenAI API wants them: arguments as JSON text, and ids that tie results to calls."""
    sent: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.get("tool_calls"):
            calls: list[dict[str, Any]] = [
                {"id": f"call_{len(sent)}_{i}", "type": "function", "function": _as_text(entry["function"])}
                for i, entry in enumerate(message["tool_calls"])
            ]
            waiting = [call["id"] for call in calls]
            sent.append({**message, "tool_calls": calls})
        elif message["role"] == "tool":
            sent.append({"role": "tool", "tool_call_id": waiting.pop(0), "content": message["content"]})
        else:
            sent.append(dict(message))
    return sent


def _as_text(function: Mapping[str, Json]) -> dict[str, Json]:
    arguments = function["arguments"]
    return {**function, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}
