"""SFT rows that begin alike, with the same tools or the same history, computed as one trie (`shared_prefix: true`).

A batch whose rows share enough stands in one packed row: what comes before the first trained token once, then each
row's own rest. Every row keeps its own labels, so loss and gradients are those of the rows one by one. Rows that begin
alike come into one batch by `batches.arrange`; a batch that shares too little is padded as ever.
"""

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from rise_train.packing.attention import masks, spare_the_stem, unserved
from rise_train.packing.self_check import prove_packing, score
from rise_train.packing.trie import NO_LABEL, Trie, pack_rows

WORTH = 0.8
"""A batch is packed where that costs at most this share of its padded rows."""


@dataclass
class SharedPrefixCollator:
    """Rows of `input_ids` and `labels` to one batch, packed where that pays for a model of this hidden size."""

    pad_token_id: int
    hidden_size: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A packed batch, or TRL's own padded one.

        Returns:
            `input_ids`, `position_ids`, `tree_end`, `shift_labels` and `labels` (the same again: the Trainer looks for
            that name) of shape (1, N); or `input_ids`, `attention_mask` and `labels` of shape (rows, longest).
        """
        trie = self.worth_packing(rows)
        if trie is None:
            padded: dict[str, Any] = DataCollatorForLanguageModeling(self.pad_token_id)(list(rows))
            return padded
        labels = torch.tensor([trie.labels])
        return {
            "input_ids": torch.tensor([trie.input_ids]),
            "position_ids": torch.tensor([trie.positions]),
            "tree_end": torch.tensor([trie.tree_end]),
            "shift_labels": labels,
            "labels": labels,
        }

    def worth_packing(self, rows: Sequence[dict[str, Any]]) -> Trie | None:
        """The rows' trie where it costs at most `WORTH` of the padded rows, by tokens and by attention."""
        ids = [row["input_ids"] for row in rows]
        if len({row[0] for row in ids}) > 1:
            return None
        trie, longest = pack_rows(ids, [row["labels"] for row in rows]), max(map(len, ids))
        stem = sum(end == trie.tree_end[0] for end in trie.tree_end)
        packed = self._cost(len(trie), stem * stem // 2 + (len(trie) - stem) * len(trie))
        return trie if packed <= WORTH * len(ids) * self._cost(longest, longest * longest) else None

    def _cost(self, tokens: int, cells: int) -> float:
        """What a layer computes, in tokens: 24 h^2 FLOPs for a token, 4 h for a query and a key that meet in a mask."""
        return tokens + cells / (6 * self.hidden_size)


def unshared(model_args: Any, training_args: Any) -> str:
    """Why a recipe with `shared_prefix` trains row by row after all; an empty string where it does not."""
    from transformers import AutoConfig

    from rise_train.models.loading import base_of

    if training_args.label_smoothing_factor:
        return "label_smoothing_factor needs the logits of whole rows"
    if training_args.packing or training_args.padding_free:
        return "packing and padding_free lay out rows in a way of their own"
    config = AutoConfig.from_pretrained(base_of(model_args.model_name_or_path))
    return unserved(config, model_args.attn_implementation or "sdpa")


def share(trainer: Any, rows: Sequence[dict[str, Any]]) -> int:
    """Let `trainer` compute packed batches of `rows`, check one, and say so; returns the tokens of an epoch."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    install(model.get_base_model() if hasattr(model, "peft_config") else model)
    hidden_size = model.config.get_text_config().hidden_size
    trainer.data_collator = SharedPrefixCollator(trainer.processing_class.pad_token_id, hidden_size)
    batches = batched(rows, trainer.args.per_device_train_batch_size)
    packed, tokens = count(trainer.data_collator, batches)
    plain = sum(len(row["input_ids"]) for row in rows)
    gap = f" (log-probabilities both ways within {self_check(trainer, batches):.1g})" if packed else ""
    print(
        f"sft: {packed} of {len(batches)} batches share what their rows begin with: {tokens:,} tokens an epoch instead "
        f"of {plain:,}{gap}",
        flush=True,
    )
    return tokens


def batched(rows: Sequence[dict[str, Any]], size: int) -> list[Sequence[dict[str, Any]]]:
    """The rows as batches of `size`, in their order; the last may be smaller."""
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def count(collator: SharedPrefixCollator, batches: Sequence[Sequence[dict[str, Any]]]) -> tuple[int, int]:
    """How many of the batches are packed, and the tokens of all, without padding."""
    packed = tokens = 0
    for batch in batches:
        trie = collator.worth_packing(batch)
        packed += trie is not None
        tokens += len(trie) if trie else sum(len(row["input_ids"]) for row in batch)
    return packed, tokens


def install(model: Any) -> None:
    """Wrap the forward of a causal LM: a batch with `tree_end` is attended to by its trie."""
    inner = model.forward
    spare_the_stem(model)

    @functools.wraps(type(model).forward)  # `generate` reads the signature
    def forward(self: Any, *args: Any, tree_end: Any = None, **batch: Any) -> Any:
        if tree_end is not None:
            batch["attention_mask"] = masks(self.config, self.dtype, tree_end, batch["position_ids"])
        return inner(*args, **batch)

    model.forward = types.MethodType(forward, model)


def self_check(trainer: Any, batches: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Prove on the shortest packed batch that it scores as its rows do (`packing.self_check`); returns the gap."""
    collator = trainer.data_collator
    packed = [(batch, trie) for batch in batches if (trie := collator.worth_packing(batch)) is not None]
    rows, trie = min(packed, key=lambda both: len(both[1]))
    pad = DataCollatorForLanguageModeling(collator.pad_token_id)
    paths = [[position for position in path if trie.labels[position] != NO_LABEL] for path in trie.paths]

    def together() -> list[torch.Tensor]:
        scores = score(trainer, trainer._prepare_inputs(collator(rows)))[0]
        return [scores[path] for path in paths]

    def apart() -> list[torch.Tensor]:
        found = []
        for row in rows:
            places = [i for i, label in enumerate(row["labels"][1:]) if label != NO_LABEL]
            found.append(score(trainer, trainer._prepare_inputs(pad([row])))[0, places])
        return found

    return prove_packing(trainer, together, apart, "shared_prefix: false")
