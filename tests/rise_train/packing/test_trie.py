"""A packed group: every completion can be read back from it, and attention follows the trie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rise_train.packing.trie import Trie, pack, pack_rows
from rise_train.rows.groups import differing
from rise_train.rows.masking import NO_LABEL

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


@given(st.lists(st.lists(TOKENS, min_size=2, max_size=7), min_size=1, max_size=5), st.data())
def test_whole_rows_share_what_comes_before_their_first_label(rows: list[list[int]], data: st.DataObject) -> None:
    rows = [[9, *row] for row in rows]
    starts = [data.draw(st.integers(min_value=1, max_value=len(row) - 1)) for row in rows]
    labels = [
        [NO_LABEL if i < start or data.draw(st.booleans()) else token for i, token in enumerate(row)]
        for row, start in zip(rows, starts, strict=True)
    ]
    trie = pack_rows(rows, labels)
    owners: dict[int, int] = {}
    for row, (whole, label, path) in enumerate(zip(rows, labels, trie.paths, strict=True)):
        assert [trie.input_ids[position] for position in path] == whole[:-1]
        assert [trie.labels[position] for position in path] == label[1:]
        assert [trie.positions[position] for position in path] == list(range(len(path)))
        assert seen(trie, path[-1]) == path
        for position in path:
            if trie.labels[position] != NO_LABEL:
                assert owners.setdefault(position, row) == row
    begin = min(next((i for i, x in enumerate(label) if x != NO_LABEL), len(label)) for label in labels)
    common = next((i for i in range(begin) if len({tuple(row[: i + 1]) for row in rows}) > 1), begin)
    assert len(trie) <= sum(len(row) - 1 for row in rows) - (len(rows) - 1) * (common - 1)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1, 2, 3, 9], [1, 5, 3, 9], ([2], [5])),
        ([1, 2, 3, 9], [1, 9], ([2, 3], [9])),
        ([1, 9], [1, 2, 3, 9], ([9], [2, 3])),
        ([1, 1, 9], [1, 9], ([1], [9])),
        ([4, 5], [6, 7, 8], ([4, 5], [6, 7, 8])),
        ([1, 2], [1, 2, 3], ([2], [3])),
        ([1, 2, 9, 2], [1, 2], ([9, 2], [2])),  # the end of the one is no second use of its beginning
    ],
)
def test_the_tokens_that_differ(left: list[int], right: list[int], expected: tuple[list[int], list[int]]) -> None:
    first, second = differing(left, right)
    assert ([left[i] for i in first], [right[i] for i in second]) == expected
