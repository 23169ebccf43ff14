"""A prompt and its completions as one token trie in one row, so that shared tokens are computed once.

A group of the preference data is one prompt with K + 1 completions that differ in a few values. As pairs it costs
2K prompts; as a trie it costs one, and the completions' common beginnings once too. Attention follows the trie: a
position sees what lies on its own path, and nothing else.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NO_LABEL = -100


@dataclass
class Trie:
    """One packed group. The four lists have one entry a position, in depth-first order.

    A scored token's input is the token before it on its path, so each position has exactly one label; where a branch
    begins, the token before it stands once in every branch. The completions' last tokens are labels only.
    """

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    """The next token on the position's path; `NO_LABEL` within the prompt."""
    positions: list[int] = field(default_factory=list)
    """Depth: how many tokens come before it on its path. These are the model's `position_ids`."""
    tree_end: list[int] = field(default_factory=list)
    """The last position of the subtree: `q` sees `k` if and only if `k <= q <= tree_end[k]`."""
    paths: list[list[int]] = field(default_factory=list)
    """For each completion, the positions that predict its tokens, in order."""

    def __len__(self) -> int:
        return len(self.input_ids)


def pack(prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> Trie:
    """Pack token ids of a prompt (at least one token) and of its completions (none empty)."""
    trie = Trie(paths=[[] for _ in completions])
    for depth, token in enumerate(prompt[:-1]):
        _append(trie, token, NO_LABEL, depth)
    _branch(trie, completions, list(range(len(completions))), 0, prompt[-1], len(prompt) - 1)
    trie.tree_end[: len(prompt) - 1] = [len(trie) - 1] * (len(prompt) - 1)
    return trie


def _append(trie: Trie, token: int, label: int, position: int) -> None:
    trie.input_ids.append(token)
    trie.labels.append(label)
    trie.positions.append(position)
    trie.tree_end.append(-1)


def _branch(
    trie: Trie, completions: Sequence[Sequence[int]], members: list[int], depth: int, before: int, offset: int
) -> None:
    """Append the subtree of the completions `members`, which agree up to `depth`; `before` is the token before it."""
    by_token: dict[int, list[int]] = defaultdict(list)
    for member in members:
        if depth < len(completions[member]):
            by_token[completions[member][depth]].append(member)
    for group in by_token.values():
        start, end = len(trie), _common_end(completions, group, depth)
        token = before
        for following in completions[group[0]][depth:end]:
            for member in group:
                trie.paths[member].append(len(trie))
            _append(trie, token, following, offset + depth + len(trie) - start)
            token = following
        stop = len(trie)
        if len(group) > 1:
            _branch(trie, completions, group, end, token, offset)
        trie.tree_end[start:stop] = [len(trie) - 1] * (stop - start)


def _common_end(completions: Sequence[Sequence[int]], group: list[int], depth: int) -> int:
    """The depth up to which all completions of `group` agree, given that they agree on the token at `depth`."""
    first, shortest = completions[group[0]], min(len(completions[member]) for member in group)
    end = depth + 1
    while end < shortest and all(completions[member][end] == first[end] for member in group):
        end += 1
    return end


def differing(left: Sequence[int], right: Sequence[int]) -> tuple[range, range]:
    """Where two unequal completions differ: what lies between their common beginning and their common end.

    Each range holds at least one token, so that a deletion is compared with the token that came instead.
    """
    shortest = min(len(left), len(right))
    start = next((i for i in range(shortest) if left[i] != right[i]), shortest)
    ending = next((i for i in range(shortest - start) if left[-1 - i] != right[-1 - i]), shortest - start)
    first, second = (range(min(start, len(s) - 1), len(s) - ending) for s in (left, right))
    return first or range(first.start, first.start + 1), second or range(second.start, second.start + 1)


def tree_mask(tree_end: Any, attention: str, dtype: Any, window: int | None = None, positions: Any = None) -> Any:
    """The attention mask of packed rows, in the form that an attention implementation takes.

    Args:
        tree_end: integer tensor of shape (rows, length); padding holds its own index.
        attention: "sdpa" (bool, True = sees), "eager" (0 or the smallest number, in `dtype`) or "flex_attention" (a
            block mask: nothing quadratic in memory).
        window: of a sliding-window layer: a position also sees only those less than `window` before it on its path.
        positions: the depths, shape (rows, length); needed with `window`.

    Returns:
        A tensor of shape (rows, 1, length, length), indexed [row, head, query, key], or a `BlockMask`.
    """
    import torch

    rows, length = tree_end.shape

    def sees(row: Any, query: Any, key: Any) -> Any:
        inside = (key <= query) & (query <= tree_end[row, key])
        if window is None:
            return inside
        return inside & (positions[row, query] - positions[row, key] < window)

    if attention == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(
            lambda row, head, query, key: sees(row, query, key), rows, None, length, length, device=tree_end.device
        )
    index = torch.arange(length, device=tree_end.device)
    row = torch.arange(rows, device=tree_end.device)[:, None, None]
    mask = sees(row, index[None, :, None], index[None, None, :])[:, None]
    if attention == "sdpa":
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
