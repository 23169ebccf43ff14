"""Files of a benchmark: JSON, found under a folder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from synthesis.errors import UserError
from synthesis.records import Json


def documents(path: Path, what: str, wanted: Callable[[Path], bool]) -> Iterator[tuple[Path, Any]]:
    """The JSON files under `path` that are `wanted`, in order, with what they hold.

    Raises:
        UserError: there is none of `what`, or one that is no JSON.
    """
    files = sorted(file for file in path.rglob("*.json") if wanted(file)) if path.is_dir() else []
    if not files:
        raise UserError(f"{path}: expected {what}, found none there")
    for file in files:
        try:
            yield file, json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file}: expected JSON: {error}") from error


def object_of(text: Json) -> dict[str, Json] | None:
    """The JSON object that `text` is, or is the text of; None where it is neither."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
