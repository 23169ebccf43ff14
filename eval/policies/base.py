"""What is evaluated: a model folder, an adapter folder, or a model behind an OpenAI-compatible server.

A policy answers prompts greedily, one reply a prompt, and never drops one: what can't be answered or read comes back
as a reply with a `problem`, which the metrics count as wrong.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eval.replies.calls import Reply, parse_hermes, read_reply
from eval.replies.linear import takes_parallel_calls
from eval.replies.templates import fit
from synthesis.errors import UserError
from synthesis.records import Json

Message = dict[str, Json]
Progress = Callable[[int], None]
"""Called with the number of prompts just answered."""
FIRST_ROUND = 64
"""New tokens after which the replies that have ended leave their batch; the rest go on among themselves."""


@dataclass(frozen=True)
class Prompt:
    """What the agent sees before a turn: the messages so far, and the tools on offer in the OpenAI format."""

    messages: list[Message]
    tools: list[dict[str, Json]]


class Policy(Protocol):
    """Anything that answers prompts."""

    name: str
    parallel: bool
    """Whether its prompts have room for several calls in one turn; else tasks come with one call a turn."""

    def reply(self, prompts: Sequence[Prompt], progress: Progress = ...) -> list[Reply]:
        """One reply a prompt, in the order of the prompts."""
        ...


def _no_progress(_done: int) -> None:
    pass


def load_policy(model: str | Path, batch_size: int = 32, max_new_tokens: int = 256) -> Policy:
    """The policy that `model` names: a folder, a Hub id, or `URL#MODEL` for an OpenAI-compatible server.

    Raises:
        UserError: no such folder or model, or a URL without a model name.
    """
    text = str(model)
    if text.startswith(("http://", "https://")):
        url, _, name = text.partition("#")
        if not name:
            raise UserError(
                f"{text}: a server needs the model's name after a #, as in http://localhost:8000/v1#my-model"
            )
        return EndpointPolicy(url, name, max_new_tokens)
    return LocalPolicy(text, batch_size, max_new_tokens)


class LocalPolicy:
    """Greedy decoding with Transformers: float32 on a CPU, bfloat16 on a GPU.

    Args:
        path_or_id: a model folder, a Hub id, or a PEFT adapter folder (its base is the one that it names).
        batch_size: prompts in one call of `generate`, padded on the left and sorted by length.
        max_new_tokens: length at which a reply is cut off.

    Raises:
        UserError: nothing that can be loaded, or a tokenizer without a chat template.
    """

    def __init__(self, path_or_id: str | Path, batch_size: int = 32, max_new_tokens: int = 256) -> None:
        self.name = str(path_or_id)
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.model, self.tokenizer = _load(self.name)
        self.tokenizer.padding_side = "left"
        # A growing cache is copied at every token: a third of the time on a CPU. On a GPU a static one means compiling.
        self.cache = "static" if self.model.device.type == "cpu" else None
        self.stop = _stop_tokens(self.model, self.tokenizer)
        self.parse = reply_parser(self.tokenizer)
        self.parallel = takes_parallel_calls(self.tokenizer)

    def render(self, prompt: Prompt) -> str:
        """The prompt's text by the tokenizer's own chat template, up to where the assistant speaks."""
        text = self.tokenizer.apply_chat_template(
            prompt.messages, tools=prompt.tools or None, add_generation_prompt=True, tokenize=False
        )
        return str(text)

    def reply(self, prompts: Sequence[Prompt], progress: Progress = _no_progress) -> list[Reply]:
        """Answer the prompts, longest first; a prompt that doesn't fit the model's context gets a `problem`."""
        texts = [self.render(prompt) for prompt in prompts]
        tokens: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        context = getattr(self.model.config, "max_position_embeddings", None)
        room = context - self.max_new_tokens if context else float("inf")
        replies = {
            i: Reply("", problem=f"the prompt has {len(ids)} tokens, and the model's context holds {context}")
            for i, ids in enumerate(tokens)
            if len(ids) > room
        }
        progress(len(replies))
        said: dict[int, list[int]] = {i: [] for i in range(len(tokens)) if i not in replies}
        for limit in sorted({min(FIRST_ROUND, self.max_new_tokens), self.max_new_tokens}):
            open_ends = sorted((i for i in said if i not in replies), key=lambda i: -len(tokens[i]))
            for batch in _batches(open_ends, self.batch_size):
                more = self._generate([tokens[i] + said[i] for i in batch], limit - len(said[batch[0]]))
                for i, new in zip(batch, more, strict=True):
                    said[i] += new
                    truncated = said[i][-1] not in self.stop
                    if not truncated or limit == self.max_new_tokens:
                        text = str(self.tokenizer.decode(said[i], skip_special_tokens=False))
                        replies[i] = read_reply(text, _bound(self.parse, texts[i], prompts[i].tools), truncated)
                progress(sum(i in replies for i in batch))
        return [replies[i] for i in range(len(prompts))]

    def _generate(self, batch: list[list[int]], count: int) -> list[list[int]]:
        """At most `count` further tokens of each row, up to and with the stop token."""
        import torch

        padded = self.tokenizer.pad({"input_ids": batch}, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(**padded, max_new_tokens=count, cache_implementation=self.cache)
        return [self._up_to_stop(row) for row in output[:, padded["input_ids"].shape[1] :].tolist()]

    def _up_to_stop(self, ids: list[int]) -> list[int]:
        end = next((i for i, token in enumerate(ids) if token in self.stop), None)
        return ids if end is None else ids[: end + 1]


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

    def reply(self, prompts: Sequence[Prompt], progress: Progress = _no_progress) -> list[Reply]:
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


def reply_parser(tokenizer: Any) -> Callable[[str, str, list[dict[str, Json]]], Mapping[str, Json]]:
    """How to read the replies of a model: (reply, prompt, tools) to assistant message.

    By the tokenizer's own `response_template`; else by the one that TRL knows for its chat template; else as
    `<tool_call>` blocks of JSON. The tools are passed on only where the template writes arguments as bare text, so that
    only the schema tells a number from a string. For JSON they would mend wrong types and hide the model's error.
    """
    if getattr(tokenizer, "response_template", None) is None:
        from trl.chat_template_utils import add_response_schema

        try:
            add_response_schema(tokenizer)
        except ValueError:
            return lambda text, _prompt, _tools: parse_hermes(_without_stop(text, tokenizer))
    field = tokenizer.response_template.get("fields", {}).get("tool_calls", {})
    bare = field.get("content") != "json"

    def parse(text: str, prompt: str, tools: list[dict[str, Json]]) -> Mapping[str, Json]:
        message: Mapping[str, Json] = tokenizer.parse_response(text, prefix=prompt, tools=tools if bare else None)
        return message

    return parse


def _load(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    folder = Path(name)
    adapter = _adapter_base(folder)
    base = adapter or name
    words = folder if adapter is None or (folder / "tokenizer_config.json").exists() else base
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    try:
        logging.disable_progress_bar()  # of the weights: it would break our own
        tokenizer = AutoTokenizer.from_pretrained(str(words))
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{name}: expected a model folder, an adapter folder or a Hub id: {reason[:200]}") from error
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, name)
        model = model.merge_and_unload() if dtype == torch.float32 else model
    if tokenizer.chat_template is None:
        raise UserError(f"{name}: the tokenizer has no chat template, so the prompt's form is unknown")
    if line := fit(tokenizer):
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def _adapter_base(folder: Path) -> str | None:
    """The base model of an adapter folder, None for anything else. A relative path may be seen from the folder."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        return None
    try:
        base = json.loads(config.read_text("utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{config}: expected a JSON object") from error
    if not isinstance(base, str) or not base:
        raise UserError(f"{config}: base_model_name_or_path: expected the base model's folder or Hub id")
    beside = folder / base
    return str(beside) if beside.is_dir() and not Path(base).is_dir() else base


def _stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Set the model to plain greedy decoding, whatever its own generation config says; return what ends a reply."""
    from transformers import GenerationConfig

    given = model.generation_config.eos_token_id
    listed = given if isinstance(given, list) else [given]
    stop = {token for token in [tokenizer.eos_token_id, *listed] if token is not None}
    model.generation_config = GenerationConfig(
        do_sample=False, use_cache=True, eos_token_id=sorted(stop), pad_token_id=tokenizer.pad_token_id
    )
    return stop


def _bound(
    parse: Callable[[str, str, list[dict[str, Json]]], Mapping[str, Json]], prompt: str, tools: list[dict[str, Json]]
) -> Callable[[str], Mapping[str, Json]]:
    return lambda text: parse(text, prompt, tools)


def _without_stop(text: str, tokenizer: Any) -> str:
    return text.removesuffix(tokenizer.eos_token) if tokenizer.eos_token else text


def _as_text(function: Mapping[str, Json]) -> dict[str, Json]:
    arguments = function["arguments"]
    return {**function, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}


def _batches(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))
