"""Requests that also stand in a benchmark: found by shared runs of words, reported, and left out of a copy.

A model that was trained on a benchmark's text cannot be measured by it. Two texts share a run when `n` words in a row
are equal, without case and punctuation. A request of fewer than `n` words is compared as a whole; below `SHORTEST`
words it says too little to be compared.

Eight is the default. Runs of 5 or 6 words find set phrases only ("I would like to know the"); the 13 that is usual for
web pages is more than a twelfth of our requests have, and would miss a task that was reworded in the middle.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthesis.dataset.reading import Stored
from synthesis.dataset.source import Row
from synthesis.dataset.writing import PREFERENCE, SFT, save
from synthesis.errors import UserError
from synthesis.records import Json

NGRAM = 8
SHORTEST = 5
SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Match:
    """A request that shares words with a benchmark: which sample, where else they stand, and which they are."""

    id: str
    split: str
    request: str
    file: Path
    shared: str


@dataclass(frozen=True)
class Report:
    """`texts` are the benchmark's strings that were read; `matches` has one entry a request and file."""

    files: int
    texts: int
    compared: int
    too_short: int
    matches: list[Match]

    @property
    def ids(self) -> set[str]:
        """Samples that match."""
        return {match.id for match in self.matches}


def check(stored: Stored, against: Sequence[Path], n: int = NGRAM) -> Report:
    """Compare every user message of the dataset with all strings in the benchmark files, or folders of them, `against`.

    Raises `UserError` for a path that is not there or holds no JSON, and for `n` below `SHORTEST`.
    """
    if n < SHORTEST:
        raise UserError(f"--ngram: expected {SHORTEST} or more words, not {n}.")
    asked: list[tuple[Row, str, str, list[str]]] = []
    too_short = 0
    for split, rows in stored.sft.items():
        for row in rows:
            for text in (message["content"] for message in row["messages"] if message["role"] == "user"):
                found = words(text)
                too_short += len(found) < SHORTEST
                asked.append((row, split, text, found))
    wanted: dict[str, list[int]] = defaultdict(list)
    for number, (_, _, _, found) in enumerate(asked):
        for run in set(runs(found, min(n, len(found)))) if len(found) >= SHORTEST else ():
            wanted[run].append(number)
    sizes = sorted({run.count(" ") + 1 for run in wanted})
    paths = list(files(against))
    texts = 0
    shared: dict[tuple[int, Path], str] = {}
    for path in paths:
        for text in strings(read(path)):
            found = words(text)
            texts += 1
            for size in sizes:
                for run in runs(found, size):
                    for number in wanted.get(run, ()):
                        shared.setdefault((number, path), run)
    matches = [
        Match(asked[number][0]["meta"]["id"], asked[number][1], asked[number][2], path, run)
        for (number, path), run in sorted(shared.items())
    ]
    return Report(len(paths), texts, len(asked) - too_short, too_short, matches)


def words(text: str) -> list[str]:
    """Words and numbers in lower case; punctuation is left out."""
    return re.findall(r"\w+", text.lower())


def runs(found: Sequence[str], size: int) -> Iterator[str]:
    """All runs of `size` words."""
    return (" ".join(found[start : start + size]) for start in range(len(found) - size + 1))


def files(against: Iterable[Path]) -> Iterator[Path]:
    """The JSON and JSONL files that the paths name, folders with all that is in them, each once, in order."""
    for path in against:
        found = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
        if not found or not all(p.is_file() for p in found):
            raise UserError(f"{path}: expected a benchmark's JSON or JSONL file, or a folder of them.")
        yield from found


def read(path: Path) -> Json:
    """What a file holds; one that is not JSON as a whole is read as JSON lines, whatever it is called."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise UserError(f"{path}: expected JSON or JSON lines ({error}).") from error


def strings(value: Json) -> Iterator[str]:
    """All texts of a JSON value that are long enough to be compared, at any depth; keys are no texts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str) and len(value.split()) >= SHORTEST:
        yield value


def clean(stored: Stored, report: Report, folder: Path) -> tuple[int, int]:
    """Write the dataset without the samples that match, and their groups; returns how many samples and negatives went.

    Raises `UserError` for a folder that holds something, and where nothing would be left of a split.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: expected a new or empty folder for the cleaned dataset.")
    sft = {split: [r for r in rows if r["meta"]["id"] not in report.ids] for split, rows in stored.sft.items()}
    groups = {
        split: [r for r in rows if r["meta"]["sample_id"] not in report.ids]
        for split, rows in stored.preference.items()
    }
    if emptied := [split for split, rows in sft.items() if stored.sft[split] and not rows]:
        raise UserError(f"{stored.folder}: every request of {', '.join(emptied)} matches, so nothing would be left.")
    save(sft, SFT, folder / "sft")
    save(groups, PREFERENCE, folder / "preference")
    negatives = _negatives(stored.preference) - _negatives(groups)
    card = (stored.folder / "README.md").read_text(encoding="utf-8")
    note = (
        f"{len(report.ids)} positives and {negatives} negatives were left out of this copy; the counts above are older."
    )
    files_read = f"Their requests share words with {report.files} benchmark files."
    (folder / "README.md").write_text(f"{card}\n## Decontaminated\n\n{files_read} {note}\n", encoding="utf-8")
    return len(report.ids), negatives


def _negatives(sides: dict[str, list[Row]]) -> int:
    return sum(len(row["rejected"]) for rows in sides.values() for row in rows)
