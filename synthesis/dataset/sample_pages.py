"""A dataset as pages to look at: one a sample, right beside deviating calls, and ids back to the real calls."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from synthesis.dataset.reading import Stored
from synthesis.dataset.source import Row
from synthesis.seeds import seeded
from synthesis.text.equality import canonical

Page = Row
"""`id`, `split`, `request`, `response`, `pattern`, `style`, `difficulty`, `servers`, `trajectory`, `primitives`,
`tools` (names) and `turns`: each with `calls`, `results`, `critical` (`[call, parameter]`), the `group` id and
`negatives`, which hold `id`, `kind`, `score`, `executed` (None where the tool was not asked) and `calls`."""


@dataclass(frozen=True)
class Filter:
    """Which pages to show; None lets everything pass. `kind` and `executed` also choose among the negatives."""

    split: str | None = None
    server: str | None = None
    pattern: str | None = None
    kind: str | None = None
    executed: str | None = None
    difficulty: str | None = None

    def __call__(self, pages: Sequence[Page]) -> list[Page]:
        """The pages that fit, with the negatives that fit."""
        return [page for page in map(self._narrow, pages) if self._fits(page)]

    def _narrow(self, page: Page) -> Page:
        turns = [
            {**turn, "negatives": [n for n in turn["negatives"] if self._fits_negative(n)]} for turn in page["turns"]
        ]
        return {**page, "turns": turns}

    def _fits_negative(self, negative: Row) -> bool:
        return self.kind in (None, negative["kind"]) and self.executed in (None, negative["executed"])

    def _fits(self, page: Page) -> bool:
        wants_negatives = self.kind is not None or self.executed is not None
        return (
            self.split in (None, page["split"])
            and self.pattern in (None, page["pattern"])
            and (self.server is None or self.server in page["servers"])
            and (self.difficulty is None or self.difficulty in page["difficulty"])
            and (not wants_negatives or any(turn["negatives"] for turn in page["turns"]))
        )


def pages(stored: Stored) -> list[Page]:
    """All pages, train first, in the order of the dataset."""
    groups: dict[str, list[Row]] = {}
    for rows in stored.preference.values():
        for row in rows:
            groups.setdefault(row["meta"]["sample_id"], []).append(row)
    return [_page(row, split, groups.get(row["meta"]["id"], ())) for split, rows in stored.sft.items() for row in rows]


def _page(row: Row, split: str, groups: Sequence[Row]) -> Page:
    meta, messages = row["meta"], row["messages"]
    turns = list(_turns(messages))
    for number, turn in enumerate(turns):
        turn["critical"] = [[c["call"], c["parameter"]] for c in meta["critical"] if c["turn"] == number]
    for group in groups:
        turn = turns[group["meta"]["turn"]]
        turn["group"] = group["meta"]["id"]
        turn["negatives"] = [
            {
                "id": m["id"],
                "kind": m["kind"],
                "score": m["score"],
                "executed": m.get("executed"),
                "calls": calls(rejected[0]),
            }
            for m, rejected in zip(group["meta"]["negatives"], group["rejected"], strict=True)
        ]
    return {
        "id": meta["id"],
        "split": split,
        "request": messages[0]["content"],
        "response": messages[-1]["content"],
        "pattern": meta["pattern"],
        "style": meta["style"],
        "difficulty": meta.get("difficulty", []),
        "servers": meta["servers"],
        "trajectory": meta["trajectory_id"],
        "primitives": meta["primitive_ids"],
        "tools": [tool["function"]["name"] for tool in row["tools"]],
        "turns": turns,
    }


def _turns(messages: Sequence[Row]) -> Iterator[Row]:
    """The decision turns of a conversation, each with the results that came back."""
    turn: Row = {}
    for role, found in groupby(messages[1:-1], key=lambda message: message["role"]):
        for message in found:
            if role == "assistant":
                turn = {"calls": calls(message), "results": [], "critical": [], "group": None, "negatives": []}
                yield turn
            else:
                turn["results"].append(message["content"])


def calls(message: Row) -> list[Row]:
    """The calls of an assistant message, each `{"name", "arguments"}`."""
    return [call["function"] for call in message.get("tool_calls") or ()]


def difference(right: Sequence[Row], deviating: Sequence[Row], call: int) -> set[str]:
    """Names of the arguments in which call number `call` differs: other value, missing, or not asked for."""
    if call >= min(len(right), len(deviating)):
        return set()
    old, new = right[call]["arguments"], deviating[call]["arguments"]
    changed = {name for name in old.keys() & new.keys() if canonical(old[name]) != canonical(new[name])}
    return changed.union(old.keys() ^ new.keys())


def find(found: Sequence[Page], wanted: str) -> list[Page]:
    """Pages that any id leads to: of the sample, group, negative, trajectory or primitive."""
    return [page for page in found if wanted in _ids(page)]


def _ids(page: Page) -> set[str]:
    negatives = (negative["id"] for turn in page["turns"] for negative in turn["negatives"])
    return {page["id"], page["trajectory"], *page["primitives"], *(t["group"] for t in page["turns"]), *negatives}


def within(found: Sequence[Page], size: int, seed: int = 0) -> list[Page]:
    """As many pages as fit into `size` bytes of compact JSON: all, or a seeded sample in their own order."""
    sizes = [len(compact(page).encode()) for page in found]
    if sum(sizes) <= size:
        return list(found)
    chosen: set[int] = set()
    for index in seeded(seed, "pages").sample(range(len(found)), len(found)):
        if size < sizes[index]:
            break
        size -= sizes[index]
        chosen.add(index)
    return [page for index, page in enumerate(found) if index in chosen]


def compact(value: object) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
