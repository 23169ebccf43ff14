"""A model on this machine, from a folder, an adapter's folder or the Hub."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.policies.adapters import base_of, is_adapter, put_on, refuse_gguf
from eval.policies.allocator import keep_freed_memory
from eval.policies.base import Keep, Message, Progress, Prompt, keep_nothing, no_progress
from eval.replies.calls import Reply, read_reply
from eval.replies.one_call_a_turn import takes_parallel_calls
from eval.replies.parsing import Parser, reply_parser
from eval.replies.templates import fit
from synthesis.errors import UserError
from synthesis.records import Json

ENDS = ("<|eom_id|>", "<|eot_id|>")
"""Tokens that end a reply wherever a vocabulary has them; not every generation config of Llama's names them."""


class LocalPolicy:
    """Greedy decoding with Transformers: float32 on a CPU or Apple's MPS, bfloat16 on a GPU.

    Args:
        path_or_id: a model folder, a Hub id, or a PEFT adapter folder (its base is the one that it names).
        batch_size: prompts decoded together.
        max_new_tokens: length at which a reply is cut off.

    Raises:
        UserError: nothing that can be loaded, or a tokenizer without a chat template.
    """

    def __init__(self, path_or_id: str | Path, batch_size: int = 32, max_new_tokens: int = 256) -> None:
        self.name = str(path_or_id)
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        keep_freed_memory()
        self.model, self.tokenizer = _load(self.name)
        self.stop = _stop_tokens(self.model, self.tokenizer)
        self.parse = reply_parser(self.tokenizer)
        self.parallel = takes_parallel_calls(self.tokenizer)

    def render(self, prompt: Prompt) -> str:
        """The prompt's text by the tokenizer's own chat template, up to where the assistant speaks."""
        text = self.tokenizer.apply_chat_template(
            prompt.messages, tools=prompt.tools or None, add_generation_prompt=True, tokenize=False
        )
        return str(text)

    def tokens_of(self, message: Message, prompt: Prompt) -> int:
        """How many tokens it takes to answer `prompt` with `message`; 0 where the template cannot say."""
        begun, messages = self.render(prompt), [*prompt.messages, message]
        whole = str(self.tokenizer.apply_chat_template(messages, tools=prompt.tools or None, tokenize=False))
        if not whole.startswith(begun):
            return 0
        return len(self.tokenizer(whole[len(begun) :], add_special_tokens=False)["input_ids"])

    def reply(
        self, prompts: Sequence[Prompt], progress: Progress = no_progress, keep: Keep = keep_nothing
    ) -> list[Reply]:
        """Answer the prompts, longest first; a prompt that doesn't fit the model's context gets a `problem`."""
        from eval.policies.decoding import decode

        texts = [self.render(prompt) for prompt in prompts]
        tokens: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        context = getattr(self.model.config, "max_position_embeddings", None)
        room = context - self.max_new_tokens if context else float("inf")
        replies = {
            i: Reply("", problem=f"the prompt has {len(ids)} tokens, and the model's context holds {context}")
            for i, ids in enumerate(tokens)
            if len(ids) > room
        }
        for i, reply in replies.items():
            keep(i, reply)
        progress(len(replies))
        asked = [i for i in range(len(tokens)) if i not in replies]
        told = decode(
            self.model,
            [tokens[i] for i in asked],
            self.stop,
            self.tokenizer.pad_token_id,
            self.max_new_tokens,
            self.batch_size,
        )
        for at, said in told:
            i = asked[at]
            text = str(self.tokenizer.decode(said, skip_special_tokens=False))
            replies[i] = read_reply(text, _bound(self.parse, texts[i], prompts[i].tools), said[-1] not in self.stop)
            keep(i, replies[i])
            progress(1)
        return [replies[i] for i in range(len(prompts))]


def _load(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    refuse_gguf(name)
    base = base_of(name)
    words = name if (Path(name) / "tokenizer_config.json").exists() else base
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    dtype = torch.float32 if device.type in ("cpu", "mps") else torch.bfloat16
    try:
        logging.disable_progress_bar()  # of the weights: it would break our own
        tokenizer = AutoTokenizer.from_pretrained(words)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{name}: expected a model folder, an adapter folder or a Hub id: {reason[:200]}") from error
    if is_adapter(name):
        model = put_on(model, name)
        model = model.merge_and_unload() if dtype == torch.float32 else model
    if line := fit(tokenizer):
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    if tokenizer.chat_template is None:
        raise UserError(f"{name}: the tokenizer has no chat template, so the prompt's form is unknown")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device).eval(), tokenizer


def _stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Set the model to plain greedy decoding, whatever its own generation config says; return what ends a reply."""
    from transformers import GenerationConfig

    given = model.generation_config.eos_token_id
    listed = given if isinstance(given, list) else [given]
    ends = tokenizer.convert_tokens_to_ids([token for token in ENDS if token in tokenizer.get_vocab()])
    stop = {token for token in [tokenizer.eos_token_id, *listed, *ends] if token is not None}
    model.generation_config = GenerationConfig(
        do_sample=False, use_cache=True, eos_token_id=sorted(stop), pad_token_id=tokenizer.pad_token_id
    )
    return stop


def _bound(parse: Parser, prompt: str, tools: list[dict[str, Json]]) -> Callable[[str], Mapping[str, Json]]:
    return lambda text: parse(text, prompt, tools)
