"""Tokenizer of the tiny base: byte-level BPE whose words have the same tokens after a space and after a quote.

That is what makes copying a value from the request into JSON a copy of tokens (measured in docs/tiny-model.md).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, CALL = "<|pad|>", "<|end|>", "<|call|>"
SPECIAL_TOKENS = [PAD, END, CALL, "<|tools|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
WORDS = r"[0-9]{1,2}|[A-Za-z]+|[^A-Za-z0-9]+"

# How a reply is read back into a message: the declarative counterpart of the chat template.
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<\|call\|>(?P<name>[A-Za-z0-9_-]+)",
            "close_pattern": r"(?=<\|call\|>|<\|end\|>)",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close_pattern": r"<\|end\|>", "content": "text"},
    },
}


def build_tokenizer(corpus: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Train the tokenizer on `corpus` and give it the chat template, markers and response template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, padding_side="left")
    fast.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text()
    fast.response_template = RESPONSE_TEMPLATE
    fast.model_max_length = 4096
    return fast
