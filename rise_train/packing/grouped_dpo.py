"""DPO over groups: the prompt is computed once for all its answers, with TRL's own trainer, loss and metrics.

A row of the dataset is a group: `prompt_ids`, `chosen_ids`, and `rejected_ids` as K lists. The collator gives TRL the
batch that it expects, cut down to the completions (2K rows), and beside it the packed trie (`rise_train.packing.trie`).
The model's forward is wrapped: it computes the trie once and hands every pair the log-probabilities on its path. TRL's
loss, reference pass, adapter switching and metrics run as they are, and losses and gradients are those of the pairs.
"""

import functools
import math
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from trl import DPOTrainer
from trl.models.utils import prepare_deepspeed

from rise_train.packing.attention import masks, spare_the_stem
from rise_train.packing.losses import discounted, discounts
from rise_train.packing.packing_proof import prove_packing, score
from rise_train.packing.trie import Trie, pack
from rise_train.rows.groups import differing
from rise_train.rows.masking import NO_LABEL

PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""What TRL's fused LM head returns for every position."""
BLOCK = 128
"""FlexAttention's block size; packed rows are padded to it, so that fewer shapes are compiled."""


class _Answer(NamedTuple):
    """One answer of a pair: where its tokens are predicted, the tokens after the prompt's last, what differs."""

    path: list[int]
    tokens: list[int]
    differs: range


@dataclass
class GroupCollator:
    """Groups to one batch: TRL's completion rows, and the packed tries as `packed_*`.

    With `one_row` all groups stand in one row, which suits a sparse mask (FlexAttention); otherwise each has its own,
    since a dense mask grows with the square of a row's length.
    """

    pad_token_id: int
    one_row: bool = False
    shared_weight: float = 1.0
    """What tokens that a pair's answers share count in its log-ratios (`rise_train.packing.losses`)."""

    def __call__(self, groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Chosen rows first, then rejected ones, as TRL splits them; P is the number of pairs of the batch.

        Returns:
            `input_ids`, `attention_mask`, `completion_mask` of shape (2P, C + 1), C the longest completion;
            `packed_input_ids`, `packed_labels`, `packed_positions`, `packed_tree_end` of shape (rows, N);
            `packed_paths` of shape (2P, C), indices into the flattened packed positions; and `packed_differs` of that
            shape, 1 for the tokens in which the two answers of a pair differ. With a `shared_weight`, C is one more,
            and `packed_discounts` of that shape says how much less each token counts.
        """
        tries = [pack(g["prompt_ids"], [g["chosen_ids"], *g["rejected_ids"]]) for g in groups]
        places, width = self._places(tries)
        chosen: list[_Answer] = []
        rejected: list[_Answer] = []
        for group, trie, place in zip(groups, tries, places, strict=True):
            paths = [[place + position for position in path] for path in trie.paths]
            for path, answer in zip(paths[1:], group["rejected_ids"], strict=True):
                right, wrong = differing(group["chosen_ids"], answer)
                chosen.append(_Answer(paths[0], [group["prompt_ids"][-1], *group["chosen_ids"]], right))
                rejected.append(_Answer(path, [group["prompt_ids"][-1], *answer], wrong))
        answers = [*chosen, *rejected]
        longest = max(len(answer.tokens) for answer in answers) + (self.shared_weight != 1)
        batch = {
            "input_ids": _padded([a.tokens for a in answers], longest, self.pad_token_id),
            "attention_mask": _padded([[1] * len(a.tokens) for a in answers], longest, 0),
            "completion_mask": _padded([[0] + [1] * len(a.path) for a in answers], longest, 0),
            "packed_paths": _padded([a.path for a in answers], longest - 1, 0),
            "packed_differs": _padded([[i in a.differs for i in range(len(a.path))] for a in answers], longest - 1, 0),
            **self._packed(tries, places, width),
        }
        if self.shared_weight != 1:
            batch["packed_discounts"] = discounts(batch, self.shared_weight)
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in groups[0]:
                batch[name] = torch.tensor([score for group in groups for score in group[name]])
        return batch

    def _places(self, tries: Sequence[Trie]) -> tuple[list[int], int]:
        """Where each trie begins in the flattened rows, and how long a row is."""
        lengths = [len(trie) for trie in tries]
        if not self.one_row:
            width = max(lengths)
            return [row * width for row in range(len(tries))], width
        starts = [sum(lengths[:i]) for i in range(len(tries))]
        return starts, math.ceil(sum(lengths) / BLOCK) * BLOCK

    def _packed(self, tries: Sequence[Trie], places: Sequence[int], width: int) -> dict[str, torch.Tensor]:
        rows = 1 if self.one_row else len(tries)
        ids = torch.full((rows * width,), self.pad_token_id)
        labels = torch.full((rows * width,), NO_LABEL)
        positions = torch.zeros(rows * width, dtype=torch.long)
        tree_end = torch.arange(rows * width) % width
        for trie, place in zip(tries, places, strict=True):
            inside = slice(place, place + len(trie))
            ids[inside], labels[inside] = torch.tensor(trie.input_ids), torch.tensor(trie.labels)
            positions[inside] = torch.tensor(trie.positions)
            tree_end[inside] = torch.tensor(trie.tree_end) + place % width
        packed = {"input_ids": ids, "labels": labels, "positions": positions, "tree_end": tree_end}
        return {f"packed_{name}": values.view(rows, width) for name, values in packed.items()}


def _padded(rows: Sequence[Sequence[int]], width: int, filler: int) -> torch.Tensor:
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def install(model: Any, record: Callable[[torch.Tensor], None] = lambda scores: None) -> None:
    """Wrap the forward of a causal LM that has TRL's fused LM head: a batch with `packed_*` is computed as a trie.

    `record` is handed the answers' log-probabilities of every such pass, shape (2P, C), without gradient.
    """
    inner = model.forward
    if getattr(inner, "_computes_tries", False):
        return
    spare_the_stem(model)

    @functools.wraps(type(model).forward)  # `generate` reads the signature
    def forward(self: Any, *args: Any, packed_input_ids: Any = None, **batch: Any) -> Any:
        if packed_input_ids is None:
            return inner(*args, **batch)
        packed = {name: batch.pop(f"packed_{name}") for name in ("labels", "positions", "tree_end", "paths")}
        labels, taken_off = batch.pop("labels"), batch.pop("packed_discounts", None)
        del batch["input_ids"], batch["attention_mask"], batch["packed_differs"]
        output = inner(
            input_ids=packed_input_ids,
            attention_mask=masks(self.config, self.dtype, packed["tree_end"], packed["positions"]),
            position_ids=packed["positions"],
            shift_labels=packed["labels"],
            **batch,
        )
        empty = labels[:, 1:] == NO_LABEL
        for name in PER_TOKEN:
            if output.get(name) is not None:
                output[name] = output[name].reshape(-1)[packed["paths"]].masked_fill(empty, 0)
        record(output["log_probs"].detach())
        if taken_off is not None:
            output["log_probs"] = discounted(output["log_probs"], taken_off)
        return output

    forward._computes_tries = True  # type: ignore[attr-defined]
    model.forward = types.MethodType(forward, model)


class GroupedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # trl carries no types
    """TRL's DPOTrainer over groups; `per_device_train_batch_size` counts groups."""

    mean_pairs = 1.0
    """Pairs of a micro-batch, on average over the present optimiser step and all processes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As the stock trainer; the dataset's rows are groups of token ids."""
        self.passes: list[torch.Tensor] = []
        super().__init__(*args, **kwargs)
        self._install()

    def _install(self) -> None:
        model = self.accelerator.unwrap_model(self.model)
        install(model.get_base_model() if hasattr(model, "peft_config") else model, self.passes.append)
        if self.ref_model is not None:
            install(self.accelerator.unwrap_model(self.ref_model), self.passes.append)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Add each group's K + K reference log-probabilities; TRL calls this while it is being made."""
        from accelerate.utils import gather_object

        self._install()
        model = self.ref_model or self.model
        if self.ref_model is None and self.is_deepspeed_enabled:
            model = prepare_deepspeed(self.model, self.accelerator)
        scores: dict[int, tuple[list[float], list[float]]] = {}
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        for step in range(math.ceil(len(dataset) / (batch_size * world))):  # as many on every rank: ZeRO-3 needs it
            first = (step * world + rank) * batch_size
            indices = [i % len(dataset) for i in range(first, first + batch_size)]
            groups = [dataset[i] for i in indices]
            batch = self._prepare_inputs(self.data_collator(groups))
            chosen, rejected = (side.tolist() for side in self.compute_ref_log_probs(model, batch))
            at = 0
            for i, group in zip(indices, groups, strict=True):
                end = at + len(group["rejected_ids"])
                scores[i] = chosen[at:end], rejected[at:end]
                at = end
        merged = {i: pair for part in gather_object([scores]) for i, pair in part.items()}
        dataset = dataset.add_column("ref_chosen_logps", [merged[i][0] for i in range(len(dataset))])
        return dataset.add_column("ref_rejected_logps", [merged[i][1] for i in range(len(dataset))])

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As ever; notes how many pairs the optimiser step has, for `compute_loss`."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        if batches:
            pairs = torch.tensor(sum(len(b["input_ids"]) for b in batches) / 2, device=self.accelerator.device)
            total = float(self.accelerator.gather(pairs).sum())
            self.mean_pairs = total / (len(batches) * self.accelerator.num_processes)
        return batches, items

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, a mean over the batch's pairs, weighed so that every pair of the optimiser step counts alike."""
        self.passes.clear()
        with _ragged_gather(self.accelerator):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            self._log_differing(inputs["packed_differs"])
        weight = len(inputs["input_ids"]) / 2 / self.mean_pairs if self.model.training else 1.0
        return (loss[0] * weight, *loss[1:]) if isinstance(loss, tuple) else loss * weight

    def _log_differing(self, differs: torch.Tensor) -> None:
        """Log what the tokens that differ contribute, apart from TRL's figures over whole answers.

        Most tokens of a mutated pair are equal, so that a margin over the whole can hide which side moved.
        """
        metrics = self._metrics["train" if self.model.training else "eval"]
        scores = [(scores * differs).sum(dim=1).chunk(2) for scores in self.passes]
        for side, values in zip(("chosen", "rejected"), scores[0], strict=True):
            metrics[f"logps/{side}_differing"].append(self.accelerator.gather(values).mean().item())
        if len(scores) == 2:  # a precomputed reference is one number an answer
            gains = [policy - reference for policy, reference in zip(*scores, strict=True)]
            margins = self.accelerator.gather(self.beta * (gains[0] - gains[1]))
            metrics["rewards/margins_differing"].append(margins.mean().item())


@contextmanager
def _ragged_gather(accelerator: Any) -> Iterator[None]:
    """Let TRL gather its metrics, one number a pair, where processes hold different numbers of pairs."""
    gather = accelerator.gather

    def padded(values: torch.Tensor) -> Any:
        if values.dim() != 1 or accelerator.num_processes == 1:
            return gather(values)
        gathered = gather(accelerator.pad_across_processes(values, pad_index=math.nan))
        return gathered[~gathered.isnan()]

    accelerator.gather = padded
    try:
        yield
    finally:
        accelerator.gather = gather


def self_check(trainer: GroupedDPOTrainer, group: dict[str, Any]) -> float:
    """Prove on one group that packed it scores as its pairs do (`packing.packing_proof`); returns the largest gap."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    stock = DataCollatorForPreference(trainer.processing_class.pad_token_id)
    flat = [{**group, "rejected_ids": rejected} for rejected in group["rejected_ids"]]
    return prove_packing(
        trainer,
        lambda: _token_scores(trainer, trainer.data_collator([group])),
        lambda: _token_scores(trainer, stock(flat)),
        "grouped: false",
    )


def _token_scores(trainer: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Log-probabilities of the completion's tokens, one 1-D tensor for each row of the batch."""
    batch = trainer._prepare_inputs(batch)
    mask = batch.pop("completion_mask")
    batch["labels"] = batch["input_ids"].masked_fill(mask == 0, NO_LABEL)
    return [row[kept[1:].bool()] for row, kept in zip(score(trainer, batch), mask, strict=True)]
