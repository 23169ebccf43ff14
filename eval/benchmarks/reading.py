"""Files of a benchmark: JSON, or a JSON object a line, found under a folder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from synthesis.errors import UserError
from synthesis.records import Json

ANSWERS = "possible_answer"
"""The folder of a benchmark's answers, beside its questions."""


def documents(path: Path, what: str, wanted: Callable[[Path], bool]) -> Iterator[tuple[Path, Any]]:
    """The JSON files under `path` that are `wanted`, in order, with what they hold.

    Raises:
        UserError: there is none of `what`, or one that is no JSON.
    """
    for file in _files(path, what, wanted):
        yield file, _read(file, file.read_text(encoding="utf-8"))


def lines(path: Path, what: str, wanted: Callable[[Path], bool]) -> Iterator[tuple[Path, list[Any]]]:
    """The files under `path` that are `wanted` and hold a JSON object a line, in order; answers are no such files.

    Raises:
        UserError: there is none of `what`, or one with a line that is no JSON.
    """
    for file in _files(path, what, lambda file: ANSWERS not in file.relative_to(path).parts and wanted(file)):
        found = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                found.append(_read(file, line, f", line {number}"))
        yield file, found


def answers(file: Path) -> dict[str, Any]:
    """The `ground_truth` of each id, from the file of the same name in the folder of answers beside `file`.

    Raises:
        UserError: there is no such file.
    """
    found = lines(file.parent / ANSWERS, f"the answers of {file.name}", lambda each: each.name == file.name)
    return {row["id"]: row["ground_truth"] for _, rows in found for row in rows}


def _files(path: Path, what: str, wanted: Callable[[Path], bool]) -> list[Path]:
    files = sorted(file for file in path.rglob("*.json") if wanted(file)) if path.is_dir() else []
    if not files:
        raise UserError(f"{path}: expected {what}, found none there")
    return files


def _read(file: Path, text: str, where: str = "") -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}{where}: expected JSON: {error}") from error


def object_of(text: Json) -> dict[str, Json] | None:
    """The JSON object that `text` is, or is the text of; None where it is neither."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
