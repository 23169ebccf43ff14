"""A small client for any OpenAI-compatible endpoint: one validated answer a question, and no question twice.

The answer is asked for by JSON schema and checked by pydantic and by the caller; what is wrong with it goes back to the
model, at most `REPAIRS` times. Good answers are files of plain JSON, written before they are used. Rate limits, server
errors, timeouts and dropped connections are retried by the SDK, which honours Retry-After.
"""

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.llm.costs import Costs, Limits, load_price
from synthesis.llm.fencing import TEXT_CHARS, fence
from synthesis.records import Json, Record
from synthesis.seeds import digest
from synthesis.text.visible import shortened, whole

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

OPENAI = "https://api.openai.com/v1"
REPAIRS = 2
"""So many times an unusable answer goes back to the model with what is wrong with it."""
_OWN_FAULT = {"content_filter", "context_length_exceeded"}
"""Codes of a refused request that blame this one prompt, not the configuration."""
_TOO_LONG = re.compile(
    r"(?i)context (?:length|size|window)|maximum context|exceeds? the (?:available )?context|too many tokens"
)
"""What servers without such codes say of a prompt that their model has no room for (vLLM, llama.cpp)."""

_FENCED = re.compile(r"```[A-Za-z]*\s*\n(.*?)```", re.DOTALL)

Stage = Literal["primitives", "samples", "negatives"]
Message = dict[str, str]


class Answer(BaseModel):
    """Base of what a model is asked for: every field is required and no other allowed, as strict schemas demand."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnswerT = TypeVar("AnswerT", bound=Answer)


class AnswerError(Exception):
    """The model has no usable answer to this question: it refused, was cut off, or stayed wrong after all repairs."""


class RejectedAnswer(Record):
    """A question without a usable answer, so that a resumed run does not ask it again."""

    id: str
    prompt: str
    reason: str


@dataclass(frozen=True)
class Prompt:
    """One question: which stage pays, the version of its files, and the text."""

    name: str
    stage: Stage
    version: str
    """Hash of the prompt's files."""
    system: str
    user: str


@dataclass(frozen=True)
class Endpoint:
    """Where the model is, and how it is asked."""

    model: str
    base_url: str = OPENAI
    api_key_env: str = "OPENAI_API_KEY"
    workers: int = 8
    """Requests under way at a time."""
    timeout_s: float = 120.0
    """For one request; a timeout is retried."""
    retries: int = 6
    max_tokens: int = 4096
    """The longest reply."""

    def check(self) -> None:
        """Raise `UserError` for a model, an address or a key that cannot be right."""
        if not self.model:
            raise UserError("--model: expected the name of a model for --author llm.")
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UserError(f"--base-url: expected an http or https address, not {self.base_url!r}.")
        if address.username or address.password or address.query:
            raise UserError("--base-url: expected no password or key in the address; keys come by --api-key-env.")
        if self.workers < 1:
            raise UserError(f"--workers: expected 1 or more, not {self.workers}.")
        if self.base_url == OPENAI and not os.environ.get(self.api_key_env):
            raise UserError(f"--api-key-env: expected the key of {OPENAI} in the environment as {self.api_key_env}.")

    @property
    def key(self) -> str:
        """The key from the environment; local servers want none, and get a word that is no secret."""
        return os.environ.get(self.api_key_env) or "none"


@dataclass(frozen=True)
class ModelOptions:
    """What the user says of the model: where it is, what it may cost, and what it costs."""

    endpoint: Endpoint
    limits: Limits
    prices: Path | None = None
    """YAML or JSON file of prices by model name; see `synthesis.llm.costs.load_price`."""

    def check(self) -> None:
        """Raise `UserError` for options that cannot be right, before anything is written."""
        self.endpoint.check()
        if self.limits.usd is not None and self.prices is None:
            raise UserError("--max-cost: expected --prices FILE beside it, because the price of a token is not known.")
        if self.prices is not None:
            load_price(self.prices, self.endpoint.model)


class AnswerCache:
    """Good answers, one JSON file each, named by the hash of all that was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str, answer: type[AnswerT]) -> AnswerT | None:
        """The answer to the question `key`, or None; raises `UserError` for a file that does not hold one."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return answer.model_validate(json.loads(path.read_text(encoding="utf-8"))["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: expected an answer ({answer.__name__}); delete the file to ask again.") from error

    def put(self, key: str, content: dict[str, Json]) -> None:
        """Write an answer; a killed process leaves the whole file or none."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{threading.get_ident()}.partial")
        partial.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)


class Client:
    """Asks one endpoint. `ask` may be called from several threads."""

    def __init__(self, endpoint: Endpoint, cache: AnswerCache, rejected: Journal[RejectedAnswer], costs: Costs) -> None:
        """Ask `endpoint`; what is asked the same again comes from `cache` or, where it failed, from `rejected`."""
        self.endpoint, self.costs = endpoint, costs
        self._cache, self._rejected = cache, rejected
        self._openai = _connect(endpoint)
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}

    def ask(
        self, prompt: Prompt, answer: type[AnswerT], seed: int, check: Callable[[AnswerT], str] = lambda _: ""
    ) -> AnswerT:
        """Return the model's answer to `prompt`, valid by its type and by `check`, which says what is wrong with it.

        Raises `AnswerError` where there is none to be had, and `UserError` where the endpoint cannot be used or a limit
        is reached. Two threads with the same question wait for one answer.
        """
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        schema, limit = answer.model_json_schema(), self.endpoint.max_tokens
        key = digest(self.endpoint.model, prompt.version, messages, schema, limit, seed, length=32)
        with self._asking.setdefault(key, threading.Lock()):
            known = self._cache.get(key, answer)
            if known is not None:
                self.costs.reuse(prompt.stage)
                return known
            if (rejection := self._rejected.get(key)) is not None:
                raise AnswerError(rejection.reason)
            try:
                found = self._converse(prompt, messages, answer, seed, check)
            except AnswerError as error:
                with self._lock:
                    self._rejected.append(RejectedAnswer(id=key, prompt=prompt.name, reason=str(error)))
                raise
            facts = {"model": self.endpoint.model, "prompt": prompt.name, "version": prompt.version}
            self._cache.put(key, {**facts, "answer": found.model_dump()})
            return found

    def _converse(
        self, prompt: Prompt, messages: list[Message], answer: type[AnswerT], seed: int, check: Callable[[AnswerT], str]
    ) -> AnswerT:
        fault = ""
        for _ in range(REPAIRS + 1):
            text = self._send(prompt, messages, answer, seed)
            try:
                found = answer.model_validate_json(_unfenced(text))
                fault = check(found)
                if not fault:
                    return found
            except ValidationError as error:
                fault = "; ".join(_describe(detail) for detail in error.errors()[:5])
            fenced = fence("fault", shortened(fault, TEXT_CHARS))
            wrong = f"That answer cannot be used:\n{fenced}\nAnswer again, in full."
            messages = [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": wrong}]
        raise AnswerError(f"unusable after {REPAIRS} repairs: {fault}")

    def _send(self, prompt: Prompt, messages: list[Message], answer: type[Answer], seed: int) -> str:
        """One request; returns the text of the reply."""
        self.costs.check()
        reply = self._complete(prompt.name, messages, answer.model_json_schema(), seed)
        self._note(prompt.stage, messages, reply)
        if not reply.choices:
            raise AnswerError("empty: the reply has no choices")
        choice = reply.choices[0]
        if choice.message.refusal:
            raise AnswerError(f"refusal: {choice.message.refusal[:200]}")
        if choice.finish_reason == "content_filter":
            raise AnswerError("refusal: the provider's content filter stopped the reply")
        if choice.finish_reason == "length":
            raise AnswerError(f"truncated: the reply is longer than {self.endpoint.max_tokens} tokens")
        return whole(choice.message.content or _called(choice.message))

    def _complete(self, name: str, messages: list[Message], schema: Json, seed: int) -> "ChatCompletion":
        import openai
        from openai.types.chat import ChatCompletion

        create: Any = self._openai.chat.completions.create
        try:
            reply = create(
                model=self.endpoint.model,
                messages=messages,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": name, "schema": schema, "strict": True},
                },
                max_completion_tokens=self.endpoint.max_tokens,
                seed=seed % 2**31,
            )
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APITimeoutError:
            raise self._stopped(f"no answer within {self.endpoint.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            raise self._stopped(f"no connection ({error.__cause__ or error})") from None
        except (openai.APIResponseValidationError, ValueError):
            reply = None
        if not isinstance(reply, ChatCompletion):
            raise self._stopped("the reply is no chat completion in JSON")
        return reply

    def _refused(self, error: Any) -> Exception:
        """An HTTP error that retries did not mend, as what it means here."""
        if error.code in _OWN_FAULT:
            return AnswerError(f"refusal: {error.code}")
        if error.status_code in (400, 413, 422) and _TOO_LONG.search(str(error)):
            return AnswerError("too long: the model's context has no room for this prompt and its answer")
        if error.status_code in (401, 403):
            env = self.endpoint.api_key_env
            return UserError(f"--api-key-env: {self.endpoint.base_url} refuses the key in {env} ({error.status_code}).")
        said = " ".join(str(error.message).split()).replace(self.endpoint.key, "***")[:300]
        return self._stopped(f"HTTP {error.status_code}, {said}")

    def _stopped(self, reason: str) -> UserError:
        address, model = self.endpoint.base_url, self.endpoint.model
        return UserError(
            f"--base-url {address}, --model {model}: {reason.rstrip('.')}; what was made is kept, and the same command "
            "goes on."
        )

    def _note(self, stage: Stage, messages: list[Message], reply: "ChatCompletion") -> None:
        """Write down the cost; where the endpoint does not say, a token is taken for three bytes."""
        if reply.usage is None:
            asked = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
            told = sum(len((choice.message.content or "").encode("utf-8", "replace")) for choice in reply.choices)
            self.costs.add(stage, -(-asked // 3), -(-told // 3))
            return
        details = reply.usage.prompt_tokens_details
        cached = (details.cached_tokens if details else None) or 0
        self.costs.add(stage, reply.usage.prompt_tokens, reply.usage.completion_tokens, cached)


def _connect(endpoint: Endpoint) -> "OpenAI":
    try:
        from openai import OpenAI
    except ImportError as error:
        raise UserError(
            "--author llm: expected the extra `llm`; install it by `pip install 'rise-train[llm]'`."
        ) from error
    return OpenAI(
        api_key=endpoint.key, base_url=endpoint.base_url, timeout=endpoint.timeout_s, max_retries=endpoint.retries
    )


def _called(message: Any) -> str:
    """The answer of a model that gives it as the arguments of a tool call; empty where there is none."""
    calls = message.tool_calls or []
    return str(calls[0].function.arguments) if calls and getattr(calls[0], "function", None) else ""


def _unfenced(text: str) -> str:
    """The JSON in `text`: servers without constrained decoding let a thought, words or a code fence stand around it."""
    stripped = text.rsplit("</think>", 1)[-1].strip()
    if fenced := _FENCED.search(stripped):
        return fenced[1].strip()
    start, end = stripped.find("{"), stripped.rfind("}")
    return stripped[start : end + 1] if 0 <= start < end else stripped


def _describe(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"]) or "the answer"
    return f"{place}: {detail['msg']}"
