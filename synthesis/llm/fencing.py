"""The fence around what others wrote, in every prompt to a language model.

Tool descriptions, schemas and results are data. They go in as JSON between `<data>` tags, with every `<`, `>` and `&`
escaped, so no text can close its fence; control characters are taken out, and long texts are cut.
"""

import json
import unicodedata

from synthesis.records import Json

TEXT_CHARS = 600
"""Longest text inside a schema, and longest argument."""
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def fence(name: str, content: Json) -> str:
    """`content` as JSON between tags that it cannot close."""
    return f'<data name="{name}">\n{json.dumps(content, ensure_ascii=False, indent=1).translate(_ESCAPES)}\n</data>'


def clean(text: str, limit: int) -> str:
    """`text` without control and format characters (line breaks and tabs stay), cut to `limit` characters."""
    kept = "".join(char for char in text[: 4 * limit] if char in "\n\t" or unicodedata.category(char)[0] != "C")
    return kept if len(kept) <= limit else kept[: limit - 3] + "..."


def cleaned(value: Json, limit: int = TEXT_CHARS) -> Json:
    """`value` with every text in it, keys too, cleaned."""
    if isinstance(value, str):
        return clean(value, limit)
    if isinstance(value, dict):
        return {clean(key, limit): cleaned(item, limit) for key, item in value.items()}
    return [cleaned(item, limit) for item in value] if isinstance(value, list) else value
