"""Which candidates a decision turn keeps, by what the tools said to them, and how all that were tried came out."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from synthesis.records import Json, Negative, Trajectory

OVERT_SHARE, OVERT_MOST = 0.25, 0.5
"""Shares of a turn's budget: beyond the first overt negatives wait until all else is used up, beyond the second they
are left out. A model meets the error itself, so they teach less."""


@dataclass
class Outcomes:
    """The negatives that are kept, by sample id, and how all that were tried came out."""

    kept: dict[str, list[Negative]] = field(default_factory=lambda: defaultdict(list))
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_server: Counter[tuple[str, str]] = field(default_factory=Counter)

    def tables(self) -> dict[str, Json]:
        """Counts by kind and by server, each with its verdicts, for the manifest and the card."""
        return {"executed_by_kind": _table(self.by_kind), "executed_by_server": _table(self.by_server)}


def unexecuted(candidates: Mapping[str, Sequence[Negative]], count: int) -> Outcomes:
    """The first `count` candidates of every turn, as they are: nothing is asked of the tools."""
    outcomes = Outcomes()
    for sample_id, found in candidates.items():
        outcomes.kept[sample_id] = [negative for turn in by_turn(found) for negative in turn[:count]]
    outcomes.by_kind.update((n.kind, "not executed") for kept in outcomes.kept.values() for n in kept)
    return outcomes


def _table(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    verdicts = ("covert", "overt", "equivalent", "not executed")
    return {row: {v: counts[row, v] for v in verdicts} for row in sorted({row for row, _ in counts})}


class Queue:
    """The candidates of one turn, in order, and what is known of those that were executed."""

    def __init__(self, trajectory: Trajectory, sample_id: str, candidates: Sequence[Negative]) -> None:
        self.trajectory, self.sample_id = trajectory, sample_id
        self.left = list(candidates)
        self.kept: list[Negative] = []
        self.held_back: list[Negative] = []
        self.equivalent: list[Negative] = []

    def lacks(self, count: int) -> bool:
        """Whether more are wanted, and there are more."""
        return len(self.kept) < count and bool(self.left)

    def take(self, count: int) -> list[Negative]:
        """The next candidates, as many as are still wanted."""
        missing = count - len(self.kept)
        taken, self.left = self.left[:missing], self.left[missing:]
        return taken

    def hear(self, negative: Negative, count: int) -> None:
        """Sort a candidate by its verdict."""
        if negative.executed == "equivalent":
            self.equivalent.append(negative)
        elif negative.executed == "overt" and sum(n.executed == "overt" for n in self.kept) >= OVERT_SHARE * count:
            self.held_back.append(negative)
        else:
            self.kept.append(negative)

    def chosen(self, count: int) -> list[Negative]:
        """What is kept; where that is too little, with some of the overt ones that were held back."""
        overt = sum(negative.executed == "overt" for negative in self.kept)
        room = min(count - len(self.kept), max(1, int(OVERT_MOST * count)) - overt)
        return self.kept + self.held_back[: max(0, room)]


def by_turn(candidates: Sequence[Negative]) -> list[list[Negative]]:
    """The candidates of a sample, turn by turn."""
    turns: dict[int, list[Negative]] = defaultdict(list)
    for negative in candidates:
        turns[negative.turn].append(negative)
    return [turns[turn] for turn in sorted(turns)]
