"""Preference groups as token ids: which of their pairs training takes, and where two answers differ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from synthesis.seeds import seeded

Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """One preference pair as token ids; both answers begin right after the prompt and end with the stop token."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of its two sequences."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass(frozen=True)
class Group:
    """One prompt, its right answer and its wrong ones (at least one), as token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[list[int]]

    @property
    def pairs(self) -> list[Pair]:
        """The right answer against each wrong one."""
        return [Pair(self.prompt_ids, self.chosen_ids, rejected) for rejected in self.rejected_ids]


def select_pairs(rows: Iterable[Row], per_group: int, limit: int | None, seed: int, whole: bool = False) -> list[Row]:
    """The groups cut down to the pairs that training takes, the same at every call.

    Which negatives of a group come first is drawn by `seed` and the group's id. Every group gives its first one before
    any gives a second, so that a small `limit` still sees many requests; with `whole`, where a group's further pairs
    cost little, a group that gives one gives all, up to `per_group`.
    """
    groups = list(rows)
    orders = [
        seeded(seed, "pairs", g["meta"]["id"]).sample(range(len(g["rejected"])), len(g["rejected"])) for g in groups
    ]
    turns = seeded(seed, "groups").sample(range(len(groups)), len(groups))
    picks = [(g, order) for rank in range(per_group) for g in turns for order in orders[g][rank : rank + 1]]
    if whole:
        picks = [(g, order) for g in turns for order in orders[g][:per_group]]
    chosen: dict[int, list[int]] = {}
    for g, k in picks[:limit]:
        chosen.setdefault(g, []).append(k)
    return [{**groups[g], "rejected": [groups[g]["rejected"][k] for k in ks]} for g, ks in sorted(chosen.items())]


def differing(left: Sequence[int], right: Sequence[int]) -> tuple[range, range]:
    """Where two unequal completions differ: what lies between their common beginning and their common end.

    Each range holds at least one token, so that a deletion is compared with the token that came instead.
    """
    shortest = min(len(left), len(right))
    start = next((i for i in range(shortest) if left[i] != right[i]), shortest)
    ending = next((i for i in range(shortest - start) if left[-1 - i] != right[-1 - i]), shortest - start)
    first, second = (range(min(start, len(s) - 1), len(s) - ending) for s in (left, right))
    return first or range(first.start, first.start + 1), second or range(second.start, second.start + 1)
