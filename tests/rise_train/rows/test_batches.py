"""Batches of like lengths, in an order that the seed fixes."""

from types import SimpleNamespace

from rise_train.rows.batches import arrange
from synthesis.seeds import seeded


def arguments(
    strategy: str = "group_by_length",
    seed: int = 0,
    micro: int = 8,
    processes: int = 1,
    data_seed: int | None = None,
) -> SimpleNamespace:
    """Eight rows a step, however they are divided."""
    return SimpleNamespace(
        train_sampling_strategy=strategy,
        seed=seed,
        data_seed=data_seed,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=8 // micro // processes,
        world_size=processes,
    )


def test_batches_hold_like_lengths_in_random_order() -> None:
    lengths = [seeded(1, i).randint(50, 500) for i in range(203)]
    args = arguments()
    order = arrange(lengths, args)
    assert args.train_sampling_strategy == "sequential"
    assert sorted(order) == list(range(203))
    batches = [[lengths[i] for i in order[at : at + 8]] for at in range(0, 203, 8)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert padded < 1.06 * sum(lengths)
    longest = [max(batch) for batch in batches[:-1]]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
    assert len(batches[-1]) == 3


def test_the_seed_fixes_the_order() -> None:
    lengths = [10 + i % 7 for i in range(100)]
    assert arrange(lengths, arguments()) == arrange(lengths, arguments())
    assert arrange(lengths, arguments()) != arrange(lengths, arguments(seed=1))
    assert arrange(lengths, arguments(data_seed=1)) == arrange(lengths, arguments(seed=1))
    assert arrange(lengths, arguments(seed=1, data_seed=0)) == arrange(lengths, arguments())


def test_a_step_sees_the_same_rows_however_it_is_divided() -> None:
    lengths = [seeded(1, i).randint(50, 500) for i in range(64)]
    whole = arrange(lengths, arguments())
    assert whole == arrange(lengths, arguments(micro=2)) == arrange(lengths, arguments(micro=2, processes=2))
    micro = [[lengths[i] for i in whole[at : at + 2]] for at in range(0, 64, 2)]
    assert sum(max(batch) * 2 for batch in micro) < 1.06 * sum(lengths), "within a step, like lengths lie together"


def test_other_strategies_are_left_to_the_trainer() -> None:
    args = arguments("random")
    assert arrange([3, 1, 2], args) == [0, 1, 2]
    assert args.train_sampling_strategy == "random"
