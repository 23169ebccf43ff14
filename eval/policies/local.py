"""A model on this machine, from a folder, an adapter's folder or the Hub."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.policies.adapters import base_of, is_adapter
from eval.policies.base import Progress, Prompt, no_progress
from eval.replies.calls import Reply, read_reply
from eval.replies.linear import takes_parallel_calls
from eval.replies.parsing import Parser, reply_parser
from eval.replies.templates import fit
from synthesis.errors import UserError
from synthesis.records import Json

FIRST_ROUND = 64
"""New tokens after which the replies that have ended leave their batch; the rest go on among themselves."""


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

    def reply(self, prompts: Sequence[Prompt], progress: Progress = no_progress) -> list[Reply]:
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


def _load(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    base = base_of(name)
    words = name if (Path(name) / "tokenizer_config.json").exists() else base
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    try:
        logging.disable_progress_bar()  # of the weights: it would break our own
        tokenizer = AutoTokenizer.from_pretrained(words)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{name}: expected a model folder, an adapter folder or a Hub id: {reason[:200]}") from error
    if is_adapter(name):
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


def _bound(parse: Parser, prompt: str, tools: list[dict[str, Json]]) -> Callable[[str], Mapping[str, Json]]:
    return lambda text: parse(text, prompt, tools)


def _batches(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))
