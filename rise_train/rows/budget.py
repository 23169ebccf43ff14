"""The length budget of a recipe: how many tokens its data really has, and what `max_length` keeps."""

from dataclasses import dataclass, field
from typing import Any

SHARES = (50, 90, 99, 100)
"""Percentiles of the table; the last is the longest."""


@dataclass
class Budget:
    """Lengths in tokens. A row is a sequence (SFT), or a group's prompt with the longest of its answers (DPO)."""

    max_length: int | None
    prompts: list[int] = field(default_factory=list)
    """Up to where the assistant first speaks."""
    answers: list[int] = field(default_factory=list)
    """Each assistant turn, its stop token included."""
    rows: list[int] = field(default_factory=list)
    agree: list[int] = field(default_factory=list)
    """DPO: tokens of the answers of a pair before the first that differs."""
    differ: list[int] = field(default_factory=list)
    """DPO: tokens of the right answer from the first that differs to the last."""

    @property
    def over(self) -> int:
        """Rows that are longer than `max_length`."""
        return sum(self.max_length is not None and length > self.max_length for length in self.rows)

    def line(self) -> str:
        """What `max_length` keeps, and which one would keep all."""
        longest, limit, count = max(self.rows), self.max_length, f"{len(self.rows):,} rows"
        if limit is None:
            return f"no max_length; the longest of {count} has {longest:,} tokens"
        if not self.over:
            return f"max_length {limit} keeps all {count}; max_length: {longest} would do"
        return f"{self.over:,} of {count} are longer than max_length {limit}; max_length: {longest} keeps all"

    def percentiles(self) -> list[tuple[str, list[int]]]:
        """For each kind of length its percentiles `SHARES` (nearest rank)."""
        named = [
            ("prompt", self.prompts),
            ("answer", self.answers),
            ("row", self.rows),
            ("same in both answers, before the first difference", self.agree),
            ("from the first difference to the last", self.differ),
        ]
        return [(name, _ranks(sorted(lengths))) for name, lengths in named if lengths]

    def table(self) -> Any:
        """The percentiles as a rich table."""
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("tokens")
        for name in columns():
            table.add_column(name, justify="right")
        for name, values in self.percentiles():
            table.add_row(name, *(f"{value:,}" for value in values))
        return table


def columns() -> list[str]:
    """Headings of the percentiles."""
    return ["median", *(f"{share} %" for share in SHARES[1:-1]), "longest"]


def _ranks(ordered: list[int]) -> list[int]:
    return [ordered[max(0, -(-len(ordered) * share // 100) - 1)] for share in SHARES]
