"""JSON files that are whole or as they were, whenever the process that writes them dies."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(
    path: Path, value: Any, *, indent: int | None = 2, sort_keys: bool = False, allow_nan: bool = False
) -> None:
    """Write `value` beside `path` and rename it, so that a kill leaves the old file or the new one, never a half.

    Text that UTF-8 cannot hold (half a surrogate pair, which models do write) goes in escaped. Raises `ValueError` for
    a number that JSON does not have (NaN, infinity), unless `allow_nan`, and then writes nothing.
    """

    def encoded(ensure_ascii: bool) -> bytes:
        options: dict[str, Any] = {
            "indent": indent,
            "sort_keys": sort_keys,
            "allow_nan": allow_nan,
            "ensure_ascii": ensure_ascii,
        }
        return (json.dumps(value, **options) + "\n").encode()

    try:
        data = encoded(ensure_ascii=False)
    except UnicodeEncodeError:
        data = encoded(ensure_ascii=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
