"""A model behind an OpenAI-compatible server."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eval.policies.base import Message, Progress, Prompt, no_progress
from eval.replies.calls import Reply, read_reply
from synthesis.errors import UserError
from synthesis.records import Json


class EndpointPolicy:
    """Greedy decoding by any OpenAI-compatible server, vLLM for one; needs the extra `llm`.

    Args:
        url: base URL, ending in /v1 as a rule. The key comes from OPENAI_API_KEY, where the server wants one.
        model: the model's name at the server.
        max_new_tokens: length at which a reply is cut off.
        workers: requests under way at a time.
    """

    def __init__(self, url: str, model: str, max_new_tokens: int = 256, workers: int = 8) -> None:
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
        self.client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=4)

    def reply(self, prompts: Sequence[Prompt], progress: Progress = no_progress) -> list[Reply]:
        """Answer the prompts; a server that fails stops the evaluation, since its failure is not the model's.

        Raises:
            UserError: the server refused or couldn't be reached after several tries.
        """
        from concurrent.futures import ThreadPoolExecutor

        replies = []
        with ThreadPoolExecutor(self.workers) as pool:
            for reply in pool.map(self._one, prompts):
                replies.append(reply)
                progress(1)
        return replies

    def _one(self, prompt: Prompt) -> Reply:
        from openai import APIError

        request: dict[str, Any] = {"model": self.model, "messages": openai_messages(prompt.messages)}
        request |= {"tools": prompt.tools} if prompt.tools else {}
        try:
            answer = self.client.chat.completions.create(**request, temperature=0, max_tokens=self.max_new_tokens)
        except APIError as error:
            raise UserError(f"{self.name}: the server failed: {str(error).splitlines()[0][:200]}") from error
        if not answer.choices:
            raise UserError(f"{self.name}: the server answered without a choice")
        message = answer.choices[0].message.model_dump()
        text = message.get("content") or json.dumps(message.get("tool_calls") or [])
        return read_reply(text, lambda _text: message, answer.choices[0].finish_reason == "length")


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
