"""A small client for any OpenAI-compatible endpoint: one validated answer a question, and no question twice.

The answer is asked for by JSON schema, in the prompt too, and checked by pydantic and by the caller; what is wrong with
it goes back to the model, at most `REPAIRS` times. Good answers are files of plain JSON, written before they are used.
Replies are streamed, so that a slow one is waited for as long as it goes on. Rate limits, server errors, timeouts and
dropped connections are retried by the SDK, which honours Retry-After; each is said on stderr.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.llm.costs import Costs, Limits, load_price
from synthesis.llm.fencing import TEXT_CHARS, fence
from synthesis.llm.manner import Manner
from synthesis.records import Json, Record
from synthesis.seeds import digest
from synthesis.text.visible import shortened, whole

if TYPE_CHECKING:
    from openai import OpenAI

OPENAI = "https://api.openai.com/v1"
REPAIRS = 2
"""So many times an unusable answer goes back to the model with what is wrong with it."""
TOO_LONG = "too long: the model's context has no room for this prompt and its answer"
_OWN_FAULT = {"content_filter"}
"""Codes of a refused request that blame this one prompt, not the configuration."""
_TOO_LONG = re.compile(
    r"(?i)context (?:length|size|window)|maximum context|exceeds? the (?:available )?context|too many tokens"
)
"""What servers without such codes say of a prompt that their model has no room for (vLLM, llama.cpp)."""

_FENCED = re.compile(r"```[A-Za-z]*\s*\n(.*?)```", re.DOTALL)

Stage = Literal["primitives", "samples", "negatives", "quality"]
Message = dict[str, str]


class Answer(BaseModel):
    """Base of what a model is asked for: these fields and no more, as strict schemas demand; others are read over."""

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra={"additionalProperties": False})


AnswerT = TypeVar("AnswerT", bound=Answer)


def right(_answer: Answer) -> str:
    """Find nothing wrong with an answer."""
    return ""


class AnswerError(Exception):
    """The model has no usable answer to this question: it refused, was cut off, or stayed wrong after all repairs."""


class TooLongError(AnswerError):
    """The model has no room for the prompt and its answer."""


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
    timeout_s: float = 300.0
    """Without a word of a reply; a timeout is retried."""
    retries: int = 6
    max_tokens: int = 4096
    """The longest reply."""
    temperature: float | None = None
    """The model's own where it is left out."""
    extra_body: Mapping[str, Json] = field(default_factory=dict)
    """What else goes into every request, say `{"chat_template_kwargs": {"enable_thinking": false}}`."""
    option: str = ""
    """The command line's words for it, where they are not `--base-url URL, --model MODEL`."""

    def check(self) -> None:
        """Raise `UserError` for a model, an address or a key that cannot be right."""
        if not self.model:
            raise UserError("--model: expected the name of a model for --author llm.")
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UserError(f"--base-url: expected an http or https address, not {self.base_url!r}.")
        if address.username or address.password or address.query:
            raise UserError("--base-url: expected no password or key in the address; keys come by --api-key-env.")
        for option, value in (("--timeout", self.timeout_s), ("--max-reply-tokens", self.max_tokens)):
            if value <= 0:
                raise UserError(f"{option}: expected more than 0, not {value:g}.")
        if self.workers < 1:
            raise UserError(f"--workers: expected 1 or more, not {self.workers}.")
        if self.base_url == OPENAI and not os.environ.get(self.api_key_env):
            raise UserError(f"--api-key-env: expected the key of {OPENAI} in the environment as {self.api_key_env}.")

    @property
    def replies(self) -> str:
        """What is asked of replies beside their shape, as JSON: what was asked otherwise is another question."""
        return json.dumps([self.max_tokens, self.temperature, dict(self.extra_body)], sort_keys=True)

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
        self._manner = Manner.of(cache.folder / f"endpoint-{digest(endpoint.base_url, endpoint.model)[:8]}.json")
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}

    def ask(
        self,
        prompt: Prompt,
        answer: type[AnswerT],
        seed: int,
        check: Callable[[AnswerT], str] = right,
        schema: Json = None,
    ) -> AnswerT:
        """Return the model's answer to `prompt`, valid by its type and by `check`, which says what is wrong with it.

        It is asked for by the type's JSON schema, or by a narrower `schema`.

        Raises `AnswerError` where there is none to be had, and `UserError` where the endpoint cannot be used or a limit
        is reached. Two threads with the same question wait for one answer.
        """
        schema = schema or answer.model_json_schema()
        shape = f"Answer with one JSON object and nothing else, by this JSON schema:\n{json.dumps(schema)}"
        messages = [{"role": "system", "content": f"{prompt.system}\n\n{shape}"}]
        messages += [{"role": "user", "content": prompt.user}]
        asked = [self.endpoint.model, prompt.version, messages, schema, self.endpoint.replies, seed]
        key = digest(*asked, length=32)
        with self._asking.setdefault(key, threading.Lock()):
            known = self._cache.get(key, answer)
            if known is not None:
                self.costs.reuse(prompt.stage)
                return known
            if (rejection := self._rejected.get(key)) is not None:
                raise (TooLongError if rejection.reason == TOO_LONG else AnswerError)(rejection.reason)
            try:
                found = self._converse(prompt, messages, answer, seed, check, schema)
            except AnswerError as error:
                with self._lock:
                    self._rejected.append(RejectedAnswer(id=key, prompt=prompt.name, reason=str(error)))
                raise
            facts = {"model": self.endpoint.model, "prompt": prompt.name, "version": prompt.version}
            self._cache.put(key, {**facts, "answer": found.model_dump()})
            return found

    def ask_in_room(
        self,
        asked: Callable[[int], Prompt],
        answer: type[AnswerT],
        seed: int,
        check: Callable[[AnswerT], str] = right,
        schema: Json = None,
    ) -> AnswerT:
        """The answer to the prompt `asked(1)` or, where the model has no room for it, to the shorter `asked(4)`."""
        try:
            return self.ask(asked(1), answer, seed, check, schema)
        except TooLongError:
            return self.ask(asked(4), answer, seed, check, schema)

    def _converse(
        self,
        prompt: Prompt,
        messages: list[Message],
        answer: type[AnswerT],
        seed: int,
        check: Callable[[AnswerT], str],
        schema: Json,
    ) -> AnswerT:
        fault = ""
        for _ in range(REPAIRS + 1):
            text = self._send(prompt, messages, schema, seed)
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

    def _send(self, prompt: Prompt, messages: list[Message], schema: Json, seed: int) -> str:
        """One request; returns the text of the reply."""
        self.costs.check()
        reply = self._complete(prompt.name, messages, schema, seed)
        self._note(prompt.stage, messages, reply)
        if not reply.choices:
            raise AnswerError("empty: the reply has no choices")
        if reply.refusal:
            raise AnswerError(f"refusal: {reply.refusal[:200]}")
        if reply.finish == "content_filter":
            raise AnswerError("refusal: the provider's content filter stopped the reply")
        if reply.finish == "length":
            raise AnswerError(f"truncated: the reply is longer than {self.endpoint.max_tokens} tokens")
        return whole(reply.content or reply.called)

    def _complete(self, name: str, messages: list[Message], schema: Json, seed: int) -> "_Reply":
        """The reply, asked for again where a refusal changes how, or where the connection breaks in its middle."""
        breaks = 0
        while True:
            asked = self._manner.request(name, schema, self.endpoint.max_tokens, seed, self.endpoint.temperature)
            try:
                return self._once(messages, asked)
            except _RefusedError as refusal:
                if not self._manner.yields(asked, refusal.status, str(refusal)):
                    raise self._refused(refusal.__cause__) from None
            except _BrokenError as broken:
                breaks += 1
                if breaks > self.endpoint.retries:
                    raise self._stopped(str(broken)) from None
                print(f"model: {broken} in the middle of a reply; asked again", file=sys.stderr, flush=True)
            except _OnePieceError:
                self._manner.without_stream()

    def _once(self, messages: list[Message], asked: dict[str, Any]) -> "_Reply":
        """One request as it is, and its reply put together."""
        import openai
        from openai.types.chat import ChatCompletion

        create: Any = self._openai.chat.completions.create
        options = {"model": self.endpoint.model, "messages": messages, "extra_body": dict(self.endpoint.extra_body)}
        try:
            said = create(**options, **asked)
        except openai.APIStatusError as error:
            raise _RefusedError(error.status_code, str(error)) from error
        except openai.APITimeoutError:
            raise self._stopped(f"no answer within {self.endpoint.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            raise self._stopped(f"no connection ({error.__cause__ or error})") from None
        except (openai.APIResponseValidationError, ValueError):
            raise self._stopped("the reply is no chat completion in JSON") from None
        if not asked.get("stream"):
            if not isinstance(said, ChatCompletion):
                raise self._stopped("the reply is no chat completion in JSON")
            return _Reply.whole(said)
        reply = _Reply()
        try:
            for piece in said:
                reply.add(piece)
        except openai.APITimeoutError:
            raise _BrokenError(f"no answer within {self.endpoint.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            raise _BrokenError(f"no connection ({error.__cause__ or error})") from None
        except openai.APIError as error:
            raise _RefusedError(400, str(error)) from error
        except (ValueError, AttributeError, TypeError):
            raise self._stopped("the reply is no chat completion in JSON") from None
        if not reply.pieces:
            raise _OnePieceError
        return reply

    def _refused(self, error: Any) -> Exception:
        """An HTTP error that retries did not mend, as what it means here."""
        status = getattr(error, "status_code", 400)
        if error.code == "context_length_exceeded":
            return TooLongError(TOO_LONG)
        if error.code in _OWN_FAULT:
            return AnswerError(f"refusal: {error.code}")
        if status in (400, 413, 422) and _TOO_LONG.search(str(error)):
            return TooLongError(TOO_LONG)
        if status in (401, 403):
            env = self.endpoint.api_key_env
            return UserError(f"--api-key-env: {self.endpoint.base_url} refuses the key in {env} ({status}).")
        said = " ".join(str(error.message).split()).replace(self.endpoint.key, "***")[:300]
        return self._stopped(f"HTTP {status}, {said}")

    def _stopped(self, reason: str) -> UserError:
        where = self.endpoint.option or f"--base-url {self.endpoint.base_url}, --model {self.endpoint.model}"
        return UserError(f"{where}: {reason.rstrip('.')}; what was made is kept, and the same command goes on.")

    def _note(self, stage: Stage, messages: list[Message], reply: "_Reply") -> None:
        """Write down the cost; where the endpoint does not say, a token is taken for three bytes."""
        if reply.usage is None:
            asked = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
            told = len((reply.content or reply.called).encode("utf-8", "replace"))
            self.costs.add(stage, -(-asked // 3), -(-told // 3))
            return
        details = reply.usage.prompt_tokens_details
        cached = (details.cached_tokens if details else None) or 0
        self.costs.add(stage, reply.usage.prompt_tokens, reply.usage.completion_tokens, cached)


def open_client(endpoint: Endpoint, cache: Path, rejected: Path, files: ExitStack, **ledger: Any) -> Client:
    """A client with answers and ledger in the folder `cache` and failures in the file `rejected`; `files` closes both.

    `ledger` is the price and the limits, as `Costs` takes them.
    """
    costs = files.enter_context(closing(Costs(cache / "costs.jsonl", **ledger)))
    failures = files.enter_context(Journal(rejected, RejectedAnswer))
    return Client(endpoint, AnswerCache(cache), failures, costs)


class _RefusedError(Exception):
    """An HTTP error that retries did not mend, or one in the middle of a stream."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _BrokenError(Exception):
    """A reply that stopped in its middle."""


class _OnePieceError(Exception):
    """A request for a stream that was answered by none."""


@dataclass
class _Reply:
    """What a model said, put together from the pieces of a stream."""

    content: str = ""
    called: str = ""
    """The arguments of the first tool call: some models give their answer so."""
    refusal: str = ""
    finish: str = ""
    usage: Any = None
    choices: int = 0
    pieces: int = 0

    @classmethod
    def whole(cls, reply: Any) -> "_Reply":
        """One that came in one piece."""
        found = cls(usage=reply.usage, pieces=1)
        for choice in (reply.choices or [])[:1]:
            found._take(choice.message, choice.finish_reason)
        return found

    def add(self, piece: Any) -> None:
        """The next piece of a stream; the last one may hold the usage alone."""
        self.pieces += 1
        self.usage = piece.usage or self.usage
        for choice in [one for one in piece.choices or [] if not one.index]:
            self._take(choice.delta, choice.finish_reason)

    def _take(self, said: Any, finish: str | None) -> None:
        self.choices = 1
        self.content += said.content or ""
        self.refusal += said.refusal or ""
        self.finish = finish or self.finish
        for call in (said.tool_calls or [])[:1]:
            self.called += (call.function.arguments if call.function else "") or ""


class _Loud(logging.Handler):
    """Says on stderr what the SDK does in silence: that it asks again, and when."""

    def emit(self, record: logging.LogRecord) -> None:
        if (said := record.getMessage()).startswith("Retrying"):
            print(f"model: {said[0].lower()}{said[1:]}", file=sys.stderr, flush=True)


def _connect(endpoint: Endpoint) -> "OpenAI":
    try:
        from openai import OpenAI
    except ImportError as error:
        asked = endpoint.option or "--author llm"
        raise UserError(f"{asked}: expected the extra `llm`; install it by `pip install 'rise-train[llm]'`.") from error
    log = logging.getLogger("openai._base_client")
    if not any(isinstance(handler, _Loud) for handler in log.handlers):
        log.addHandler(_Loud())
        log.setLevel(logging.INFO)
        log.propagate = False
    return OpenAI(
        api_key=endpoint.key, base_url=endpoint.base_url, timeout=endpoint.timeout_s, max_retries=endpoint.retries
    )


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
