"""A packed group: every completion can be read back from it, and attention follows the trie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rise_train.trie import NO_LABEL, Trie, differing, pack, tree_mask

TOKENS = st.integers(min_value=1, max_value=4)  # few, so that completions share their beginnings
GROUPS = st.tuples(
    st.lists(TOKENS, min_size=1, max_size=6), st.lists(st.lists(TOKENS, min_size=1, max_size=7), min_size=1, max_size=6)
)


def seen(trie: Trie, query: int) -> list[int]:
    return [key for key in range(query + 1) if query <= trie.tree_end[key]]


@given(GROUPS)
def test_every_completion_is_read_back_from_its_path(group: tuple[list[int], list[list[int]]]) -> None:
    prompt, completions = group
    trie = pack(prompt, completions)
    for completion, path in zip(completions, trie.paths, strict=True):
        assert [trie.labels[position] for position in path] == completion
        assert [trie.input_ids[position] for position in path] == [prompt[-1], *completion[:-1]]
        assert [trie.positions[position] for position in path] == [
            len(prompt) - 1 + depth for depth in range(len(completion))
        ]


@given(GROUPS)
def test_a_position_sees_its_own_path_and_nothing_else(group: tuple[list[int], list[list[int]]]) -> None:
    prompt, completions = group
    trie = pack(prompt, completions)
    for completion, path in zip(completions, trie.paths, strict=True):
        whole = [*prompt, *completion]
        for depth, position in enumerate(path):
            view = [trie.input_ids[key] for key in seen(trie, position)]
            assert view == whole[: len(prompt) + depth]


@given(GROUPS)
def test_shared_beginnings_stand_once(group: tuple[list[int], list[list[int]]]) -> None:
    prompt, completions = group
    trie = pack(prompt, completions)
    beginnings = {tuple(completion[:end]) for completion in completions for end in range(1, len(completion) + 1)}
    assert len(trie) == len(prompt) - 1 + len(beginnings)
    assert trie.labels[: len(prompt) - 1] == [NO_LABEL] * (len(prompt) - 1)


@pytest.mark.parametrize("window", [None, 3])
def test_masks_of_all_kinds_say_the_same(window: int | None) -> None:
    import torch

    trie = pack([5, 6, 7, 8], [[1, 2, 3], [1, 2, 4], [1, 9]])
    end, positions = torch.tensor([trie.tree_end]), torch.tensor([trie.positions])
    allowed = tree_mask(end, "sdpa", torch.float32, window, positions)[0, 0]
    expected = [
        [
            k in seen(trie, q) and (window is None or trie.positions[q] - trie.positions[k] < window)
            for k in range(len(trie))
        ]
        for q in range(len(trie))
    ]
    assert allowed.tolist() == expected
    eager = tree_mask(end, "eager", torch.float32, window, positions)[0, 0]
    assert torch.equal(eager == 0, allowed)
    assert (eager[~allowed] < -1e38).all()
    flex = tree_mask(end, "flex_attention", torch.float32, window, positions)
    index = torch.arange(len(trie))
    assert torch.equal(flex.mask_mod(torch.tensor(0), 0, index[:, None], index[None, :]), allowed)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1, 2, 3, 9], [1, 5, 3, 9], ([2], [5])),
        ([1, 2, 3, 9], [1, 9], ([2, 3], [9])),
        ([1, 9], [1, 2, 3, 9], ([9], [2, 3])),
        ([1, 1, 9], [1, 9], ([1], [9])),
        ([4, 5], [6, 7, 8], ([4, 5], [6, 7, 8])),
        ([1, 2], [1, 2, 3], ([2], [3])),
    ],
)
def test_the_tokens_that_differ(left: list[int], right: list[int], expected: tuple[list[int], list[int]]) -> None:
    first, second = differing(left, right)
    assert ([left[i] for i in first], [right[i] for i in second]) == expected
