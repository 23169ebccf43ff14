"""The order in which rows are trained on: batches of like lengths, or of rows that begin alike."""

from collections.abc import Sequence
from typing import Any

from synthesis.seeds import seeded


def arrange(lengths: Sequence[int], training_args: Any, begins: Sequence[Sequence[int]] | None = None) -> list[int]:
    """Order of rows: with `group_by_length`, batches of like lengths in random order; else as they are.

    The Trainer's own sampler of that name goes from long to short over fifty batches at a time, so that the loss saws
    and the last steps, at a small learning rate, see only the shortest rows. Here the batches are shuffled. Their
    make-up is the same in every epoch; a resumed run sees the same batches, since the order is part of the data.

    With `begins`, the rows' token ids, batches hold rows that begin alike, whatever the strategy.
    """
    if begins is None and str(training_args.train_sampling_strategy) != "group_by_length":
        return list(range(len(lengths)))
    training_args.train_sampling_strategy = "sequential"
    random, size = seeded(training_args.seed, "batches"), training_args.per_device_train_batch_size
    rows = random.sample(range(len(lengths)), len(lengths))
    whole = len(rows) - len(rows) % size
    keys: Sequence[Any] = lengths if begins is None else begins
    order = sorted(rows[:whole], key=lambda i: keys[i])
    batches = [order[at : at + size] for at in range(0, whole, size)]
    random.shuffle(batches)
    return [i for batch in [*batches, rows[whole:]] for i in batch]


def arranged(encoded: Sequence[Any], training_args: Any, alike: bool) -> list[dict[str, list[int]]]:
    """SFT rows (`masking.Encoded`) as `input_ids` and `labels`, in the order of `arrange`; `alike`: by beginnings."""
    ids = [row.input_ids for row in encoded]
    order = arrange([len(row) for row in ids], training_args, ids if alike else None)
    return [{"input_ids": ids[i], "labels": encoded[i].labels} for i in order]
