"""Which tokens carry loss, found from what the model will be asked when it serves; works for any chat template.

A *target* is one assistant turn: it begins where the serving prompt of that turn ends (history plus generation prompt)
and ends with the stop token. Nothing else carries loss: no schema, no user text, no tool result, and not the line
break that some templates put behind the stop token. Both stages use the same targets, so what SFT teaches is what DPO
compares.
"""

from dataclasses import dataclass
from typing import Any

from eval.replies.templates import fit, marked
from synthesis.errors import UserError

Message = dict[str, Any]
Span = tuple[int, int]
NO_LABEL = -100
"""Label of a token without loss, as PyTorch and TRL have it."""


class MaskError(UserError):
    """The chat template cannot give this conversation a sound mask."""


class HistoryError(MaskError):
    """No one sequence serves all turns.

    The chat template renders an earlier turn otherwise once others follow, or a token runs across the beginning of an
    answer, which a server, that tokenises the prompt alone, would never see.
    """


@dataclass(frozen=True)
class Encoded:
    """A conversation as token ids, with the half-open token ranges [start, end) of its targets."""

    input_ids: list[int]
    spans: list[Span]
    marked: list[int] | None = None
    """What the template's own generation markers say (1 = assistant), a second opinion; None where it has none."""

    @property
    def labels(self) -> list[int]:
        """Labels for a causal LM, shape (length,): the token id where it carries loss, else -100."""
        labels = [NO_LABEL] * len(self.input_ids)
        for start, end in self.spans:
            labels[start:end] = self.input_ids[start:end]
        return labels

    @property
    def targets(self) -> list[list[int]]:
        """Token ids of each target."""
        return [self.input_ids[start:end] for start, end in self.spans]


def render_ids(tokenizer: Any, messages: list[Message], tools: list[Message] | None, *, serve: bool) -> list[int]:
    """Token ids of `messages`; with `serve` the generation prompt is added, as an inference server does.

    Raises `MaskError` where the template refuses the conversation.
    """
    return list(_render(tokenizer, messages, tools, add_generation_prompt=serve, return_dict=False))


def encode_turn(
    tokenizer: Any, prompt: list[Message], turn: Message, tools: list[Message] | None
) -> tuple[list[int], list[int]]:
    """Token ids of the serving prompt and of the one assistant message that answers it, stop token included.

    Raises `MaskError` as `encode_answer` does.
    """
    prompt_ids = render_ids(tokenizer, prompt, tools, serve=True)
    return prompt_ids, encode_answer(tokenizer, prompt, prompt_ids, turn, tools)


def encode_answer(
    tokenizer: Any, prompt: list[Message], prompt_ids: list[int], turn: Message, tools: list[Message] | None
) -> list[int]:
    """Token ids of one assistant message behind a serving prompt that is rendered already.

    Where a token would run across the two they are tokenised apart, as when serving. Raises `MaskError` where the
    template renders the history differently once the answer follows, or never stops.
    """
    whole = render_ids(tokenizer, [*prompt, turn], tools, serve=False)
    if whole[: len(prompt_ids)] != prompt_ids:
        asked = _render(tokenizer, prompt, tools, tokenize=False, add_generation_prompt=True)
        text = _render(tokenizer, [*prompt, turn], tools, tokenize=False)
        if text.startswith(asked):
            whole = prompt_ids + tokenizer(text[len(asked) :], add_special_tokens=False)["input_ids"]
    return _answer(tokenizer, prompt_ids, whole)


def encode_conversation(tokenizer: Any, messages: list[Message], tools: list[Message] | None) -> Encoded:
    """A whole conversation as one sequence, with one target for each of its assistant messages.

    Raises `MaskError` as `encode_turn` does, and `HistoryError` where an earlier turn is not a prefix of the whole.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise MaskError("the conversation has no assistant message to learn from")
    whole, marked = _render_marked(tokenizer, messages, tools)
    spans = []
    for i in turns:
        if i == len(messages) - 1:
            prompt_ids = render_ids(tokenizer, messages[:i], tools, serve=True)
            answer = _answer(tokenizer, prompt_ids, whole)
        else:
            prompt_ids, answer = encode_turn(tokenizer, messages[:i], messages[i], tools)
        start, end = len(prompt_ids), len(prompt_ids) + len(answer)
        if whole[:end] != prompt_ids + answer:
            raise HistoryError(_not_prefix(tokenizer, whole, prompt_ids + answer))
        spans.append((start, end))
    length = spans[-1][1] if turns[-1] == len(messages) - 1 else len(whole)
    return Encoded(whole[:length], spans, marked[:length] if marked else None)


def encode_each_turn(tokenizer: Any, messages: list[Message], tools: list[Message] | None) -> list[Encoded]:
    """Each assistant message as a sequence of its own, behind the prompt that a server would build for it.

    For what `HistoryError` says of a conversation; costs the prompts once a turn. Raises `MaskError` as `encode_turn`.
    """
    parts = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt_ids, answer = encode_turn(tokenizer, messages[:i], message, tools)
            parts.append(Encoded(prompt_ids + answer, [(len(prompt_ids), len(prompt_ids) + len(answer))]))
    return parts


def _answer(tokenizer: Any, prompt_ids: list[int], whole: list[int]) -> list[int]:
    if whole[: len(prompt_ids)] != prompt_ids:
        raise HistoryError(_not_prefix(tokenizer, whole, prompt_ids))
    rest = whole[len(prompt_ids) :]
    stops = [i for i, token in enumerate(rest) if token == tokenizer.eos_token_id]
    if not stops:
        raise MaskError(
            f"the chat template does not end an assistant turn with the stop token {tokenizer.eos_token!r}; set "
            f"`eos_token` to the one it uses (the turn ends with {tokenizer.decode(rest[-4:])!r})"
        )
    return rest[: stops[-1] + 1]


def _not_prefix(tokenizer: Any, whole: list[int], prefix: list[int]) -> str:
    same = next(
        (i for i, (a, b) in enumerate(zip(whole, prefix, strict=False)) if a != b), min(len(whole), len(prefix))
    )
    return (
        "the prompt in training is not the prompt when serving: the chat template writes "
        f"{tokenizer.decode(whole[same : same + 12])!r} in training where serving has "
        f"{tokenizer.decode(prefix[same : same + 12])!r}"
    )


def use_training_template(tokenizer: Any) -> str:
    """Give `tokenizer` a template that renders history the same whatever follows; returns a line on what changed.

    The project's own (`eval.replies.templates`) where the stock one is known to be unfit, else the variant that TRL
    carries of common templates. It is saved with the model, and how to read replies with it, so both stages, evaluation
    and serving see one and the same template. A template that neither knows stays, and the line is empty; rows then
    prove it or fail. Raises `UserError` for a template that shows no tools.
    """
    from trl.chat_template_utils import add_response_schema, get_training_chat_template, supports_tool_calling

    line = fit(tokenizer)
    if not supports_tool_calling(tokenizer):
        raise UserError(
            "the tokenizer's chat template does not render tool calls and tool results; choose a model whose template "
            "does, or set `chat_template_path`"
        )
    try:
        if tokenizer.response_template is None:
            add_response_schema(tokenizer)
        variant = get_training_chat_template(tokenizer)
    except ValueError:  # a template that TRL does not know
        return line
    if variant is None:
        return line
    tokenizer.chat_template = variant
    return "chat template: TRL's training variant of the stock one"


def _render_marked(
    tokenizer: Any, messages: list[Message], tools: list[Message] | None
) -> tuple[list[int], list[int] | None]:
    """Token ids, and the mask (1 = assistant) by the template's own generation markers where it has them."""
    markers = marked(tokenizer.chat_template)
    encoded = _render(tokenizer, messages, tools, return_dict=True, return_assistant_tokens_mask=markers)
    return list(encoded["input_ids"]), list(encoded["assistant_masks"]) if markers else None


def _render(tokenizer: Any, messages: list[Message], tools: list[Message] | None, **options: Any) -> Any:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tools=tools or None, **options)
    except TemplateError as error:
        raise MaskError(f"the chat template refuses this conversation: {error}") from error
    except TypeError as error:
        raise MaskError(f"the chat template cannot show this conversation, its arguments for one: {error}") from error
