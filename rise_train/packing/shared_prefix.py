"""SFT rows that begin alike, with the same tools or the same history, computed as one trie (`shared_prefix: true`).

A batch whose rows share enough stands in one packed row: what comes before the first trained token once, then each
row's own rest. Every row keeps its own labels, so loss and gradients are those of the rows one by one. Rows that begin
alike come into one batch by `batches.arrange`; a batch that shares too little is padded as ever.
"""

import functools
import math
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from rise_train.packing.attention import masks, spare_the_stem, unserved
from rise_train.packing.packing_proof import prove_packing, score
from rise_train.packing.trie import Trie, pack_rows
from rise_train.rows.masking import NO_LABEL

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

    from eval.policies.adapters import base_of

    if training_args.label_smoothing_factor:
        return "label_smoothing_factor needs the logits of whole rows"
    if training_args.packing or training_args.padding_free:
        return "packing and padding_free lay out rows in a way of their own"
    config = AutoConfig.from_pretrained(base_of(model_args.model_name_or_path))
    return unserved(config, model_args.attn_implementation or "sdpa")


def share(trainer: Any, rows: Any) -> int:
    """Let `trainer` compute packed batches of `rows` (a Dataset), check one, and say so; returns an epoch's tokens."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    install(model.get_base_model() if hasattr(model, "peft_config") else model)
    hidden_size = model.config.get_text_config().hidden_size
    trainer.data_collator = SharedPrefixCollator(trainer.processing_class.pad_token_id, hidden_size)
    found = survey_batches(trainer.data_collator, batched(rows, trainer.args.per_device_train_batch_size))
    gap = ""
    if found.shortest is not None:
        gap = f" (log-probabilities both ways within {self_check(trainer, found.shortest):.1g})"
    print(
        f"sft: {found.packed} of {found.batches} batches share what their rows begin with: {found.tokens:,} tokens an "
        f"epoch instead of {found.plain:,}{gap}",
        flush=True,
    )
    return found.tokens


def batched(rows: Any, size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows as batches of `size`, in their order; the last may be smaller."""
    for at in range(0, len(rows), size):
        yield [rows[i] for i in range(at, min(at + size, len(rows)))]


@dataclass
class Survey:
    """What sharing saves over all batches of an epoch."""

    batches: int = 0
    packed: int = 0
    tokens: int = 0
    """Computed, without padding."""
    plain: int = 0
    """Without sharing."""
    shortest: list[dict[str, Any]] | None = None
    """Of the packed batches the one with the fewest tokens."""


def survey_batches(collator: SharedPrefixCollator, batches: Iterable[list[dict[str, Any]]]) -> Survey:
    """Pack every batch for which it pays, and count."""
    found, least = Survey(), math.inf
    for batch in batches:
        trie, plain = collator.worth_packing(batch), sum(len(row["input_ids"]) for row in batch)
        found.batches += 1
        found.packed += trie is not None
        found.plain += plain
        found.tokens += len(trie) if trie else plain
        if trie and len(trie) < least:
            found.shortest, least = batch, len(trie)
    return found


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


def self_check(trainer: Any, rows: list[dict[str, Any]]) -> float:
    """Prove on one packed batch that it scores as its rows do (`packing.packing_proof`); returns the largest gap."""
    collator = trainer.data_collator
    trie = collator.worth_packing(rows)
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
