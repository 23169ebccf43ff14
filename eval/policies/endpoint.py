"""A model behind an OpenAI-compatible server."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eval.policies.base import Keep, Message, Progress, Prompt, keep_nothing, no_progress
from eval.replies.calls import Reply, read_reply
from eval.replies.one_call_a_turn import linear_messages
from synthesis.errors import UserError
from synthesis.records import Json

REFUSED = "the server refused the prompt: "
TRIES = 4


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
        self.limit = "max_tokens"
        self.options: dict[str, Any] = {"temperature": temperature}
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
        return read_reply(text, lambda _text: message, answer.choices[0].finish_reason == "length")

    def _ask(self, prompt: Prompt) -> Any:
        """One request, in the words that this server takes: what it says it does not know is put otherwise.

        Newer OpenAI models want `max_completion_tokens` and no temperature; a server whose template has room for one
        call a turn gets the history so.
        """
        from openai import BadRequestError

        messages = prompt.messages
        for _ in range(TRIES):
            request: dict[str, Any] = {"model": self.model, "messages": openai_messages(messages), **self.options}
            request |= {self.limit: self.max_new_tokens}
            request |= {"tools": prompt.tools} if prompt.tools else {}
            try:
                return self.client.chat.completions.create(**request)
            except BadRequestError as error:
                said = str(error)
                if "max_tokens" in request and "max_completion_tokens" in said:
                    self.limit = "max_completion_tokens"
                elif "temperature" in request and "temperature" in said:
                    self.options = {}
                elif any(len(message.get("tool_calls") or []) > 1 for message in messages) and "tool" in said:
                    messages = linear_messages(messages)
                else:
                    raise
        raise AssertionError("each of the three can be put otherwise once")


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
