"""JSON files that are whole or as they were, whenever the process that writes them dies."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(
    path: Path, value: Any, *, indent: int | None = 2, sort_keys: bool = False, allow_nan: bool = False
) -> None:
    """Write `value` beside `path` and rename it, so that a kill leaves the old file or the new one, never a half.

    Raises `ValueError` for a number that JSON does not have (NaN, infinity), unless `allow_nan`, and then writes
    nothing.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=sort_keys, allow_nan=allow_nan)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)
