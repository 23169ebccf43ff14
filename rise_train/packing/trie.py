"""A prompt and its completions as one token trie in one row, so that shared tokens are computed once.

A group of the preference data is one prompt with K + 1 completions that differ in a few values. As pairs it costs
2K prompts; as a trie it costs one, and the completions' common beginnings once too. Attention follows the trie: a
position sees what lies on its own path, and nothing else.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rise_train.rows.masking import NO_LABEL


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
    apart = [len(completion) for completion in completions]
    _branch(trie, completions, apart, list(range(len(completions))), 0, prompt[-1], len(prompt) - 1)
    trie.tree_end[: len(prompt) - 1] = [len(trie) - 1] * (len(prompt) - 1)
    return trie


def pack_rows(rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> Trie:
    """Pack whole rows that begin with the same token, each of two tokens at least, with the labels that they came with.

    Rows share what they have in common up to the first token that carries a label in one of them. From there on a row
    stands alone, since a label that two rows share has to count twice.
    """
    following = [row[1:] for row in rows]
    apart = [next((i for i, label in enumerate(row[1:]) if label != NO_LABEL), len(row) - 1) for row in labels]
    trie = Trie(paths=[[] for _ in rows])
    _branch(trie, following, apart, list(range(len(rows))), 0, rows[0][0], 0)
    for path, row in zip(trie.paths, labels, strict=True):
        for position, label in zip(path, row[1:], strict=True):
            trie.labels[position] = label
    return trie


def packed_lengths(groups: Iterable[Any]) -> list[int]:
    """Tokens of each group (`rows.groups.Group`) as a trie."""
    return [len(pack(group.prompt_ids, [group.chosen_ids, *group.rejected_ids])) for group in groups]


def _append(trie: Trie, token: int, label: int, position: int) -> None:
    trie.input_ids.append(token)
    trie.labels.append(label)
    trie.positions.append(position)
    trie.tree_end.append(-1)


def _branch(
    trie: Trie,
    completions: Sequence[Sequence[int]],
    apart: Sequence[int],
    members: list[int],
    depth: int,
    before: int,
    offset: int,
) -> None:
    """Append the subtree of the completions `members`, which agree up to `depth`; `before` is the token before it.

    From the depth `apart` on, a completion shares no position with another.
    """
    by_token: dict[tuple[int, int], list[int]] = defaultdict(list)
    for member in members:
        if depth < len(completions[member]):
            by_token[completions[member][depth], member if depth >= apart[member] else -1].append(member)
    for group in by_token.values():
        start, end = len(trie), _common_end(completions, apart, group, depth)
        token = before
        for following in completions[group[0]][depth:end]:
            for member in group:
                trie.paths[member].append(len(trie))
            _append(trie, token, following, offset + depth + len(trie) - start)
            token = following
        stop = len(trie)
        if len(group) > 1:
            _branch(trie, completions, apart, group, end, token, offset)
        trie.tree_end[start:stop] = [len(trie) - 1] * (stop - start)


def _common_end(completions: Sequence[Sequence[int]], apart: Sequence[int], group: list[int], depth: int) -> int:
    """The depth up to which all completions of `group` share, given that they agree on the token at `depth`."""
    first = completions[group[0]]
    if len(group) == 1:
        return len(first)
    shortest = min(apart[member] for member in group)
    end = depth + 1
    while end < shortest and all(completions[member][end] == first[end] for member in group):
        end += 1
    return end
