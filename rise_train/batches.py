"""The order in which rows are trained on, where the recipe asks for `train_sampling_strategy: group_by_length`."""

from typing import Any

from synthesis.seeds import seeded


def arrange(lengths: list[int], training_args: Any) -> list[int]:
    """Order of rows: with `group_by_length`, batches of like lengths in random order; else as they are.

    The Trainer's own sampler of that name goes from long to short over fifty batches at a time, so that the loss saws
    and the last steps, at a small learning rate, see only the shortest rows. Here the batches are shuffled. Their
    make-up is the same in every epoch; a resumed run sees the same batches, since the order is part of the data.
    """
    if str(training_args.train_sampling_strategy) != "group_by_length":
        return list(range(len(lengths)))
    training_args.train_sampling_strategy = "sequential"
    random, size = seeded(training_args.seed, "batches"), training_args.per_device_train_batch_size
    rows = random.sample(range(len(lengths)), len(lengths))
    whole = len(rows) - len(rows) % size
    order = sorted(rows[:whole], key=lambda i: lengths[i])
    batches = [order[at : at + size] for at in range(0, whole, size)]
    random.shuffle(batches)
    return [i for batch in [*batches, rows[whole:]] for i in batch]
