"""The order in which rows are trained on: batches of like lengths, or of rows that begin alike."""

from collections.abc import Sequence
from typing import Any

from synthesis.seeds import seeded


def rows_a_step(training_args: Any) -> int:
    """Rows of one optimiser step, over all micro-batches and processes."""
    micro = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps
    return int(micro * training_args.world_size)


def arrange(lengths: Sequence[int], training_args: Any, begins: Sequence[Sequence[int]] | None = None) -> list[int]:
    """Order of rows: with `group_by_length`, batches of like lengths in random order; else as they are.

    The Trainer's own sampler of that name goes from long to short over fifty batches at a time, so that the loss saws
    and the last steps, at a small learning rate, see only the shortest rows. Here the batches are shuffled. Their
    make-up is the same in every epoch; a resumed run sees the same batches, since the order is part of the data. A
    batch is what one optimiser step sees, in order of length, so that it is the same however it is divided.

    With `begins`, the rows' token ids, batches hold rows that begin alike, whatever the strategy.
    """
    if begins is None and str(training_args.train_sampling_strategy) != "group_by_length":
        return list(range(len(lengths)))
    training_args.train_sampling_strategy = "sequential"
    chosen = training_args.data_seed
    random = seeded(training_args.seed if chosen is None else chosen, "batches")
    size = rows_a_step(training_args)
    rows = random.sample(range(len(lengths)), len(lengths))
    whole = len(rows) - len(rows) % size
    keys: Sequence[Any] = lengths if begins is None else begins
    order = sorted(rows[:whole], key=lambda i: keys[i])
    batches = [order[at : at + size] for at in range(0, whole, size)]
    random.shuffle(batches)
    return [i for batch in [*batches, rows[whole:]] for i in batch]


def table(report: Any) -> Any:
    """What training takes of a `CheckReport` as a `datasets.Dataset`, which stays on disk where the records are there.

    SFT rows have `input_ids` and `labels`, groups `prompt_ids`, `chosen_ids` and `rejected_ids`.
    """
    from datasets import Dataset

    columns = ["input_ids", "labels"] if report.stage == "sft" else ["prompt_ids", "chosen_ids", "rejected_ids"]
    records = report.records if isinstance(report.records, Dataset) else Dataset.from_list(list(report.records))
    return records.select_columns(columns)


def pair_table(report: Any) -> Any:
    """The groups of a `CheckReport` as pairs: a `datasets.Dataset` of `prompt_ids`, `chosen_ids` and `rejected_ids`."""
    groups = table(report)

    def unroll(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pairs = [
            (prompt, chosen, rejected)
            for prompt, chosen, wrong in zip(
                batch["prompt_ids"], batch["chosen_ids"], batch["rejected_ids"], strict=True
            )
            for rejected in wrong
        ]
        return dict(zip(groups.column_names, map(list, zip(*pairs, strict=True)), strict=True))

    types = {name: groups.features[name] for name in ("prompt_ids", "chosen_ids")}
    features = type(groups.features)({**types, "rejected_ids": types["chosen_ids"]})
    return groups.map(unroll, batched=True, features=features)


def pair_lengths(report: Any) -> list[int]:
    """Tokens of the longer sequence of each pair, in the order of `pair_table`."""
    found = []
    for lengths in report.records["lengths"] if hasattr(report.records, "column_names") else _lengths(report.records):
        prompt, chosen, *wrong = lengths
        found += [prompt + max(chosen, other) for other in wrong]
    return found


def _lengths(records: Any) -> list[list[int]]:
    return [record["lengths"] for record in records]
