"""The fence around what others wrote, in every prompt to a language model.

Tool descriptions, schemas and results are data. They go in as JSON between `<data>` tags, with every `<`, `>` and `&`
escaped, so no text can close its fence; what a reader does not see is taken out, and long texts are cut.
"""

import json

from synthesis.records import Json
from synthesis.text.visible import shortened

TEXT_CHARS = 600
"""Longest text inside a schema, and longest argument."""
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def fence(name: str, content: Json) -> str:
    """`content` as JSON between tags that it cannot close."""
    return f'<data name="{name}">\n{json.dumps(content, ensure_ascii=False, indent=1).translate(_ESCAPES)}\n</data>'


def cleaned(value: Json, limit: int = TEXT_CHARS) -> Json:
    """`value` with every text in it, keys too, shortened."""
    if isinstance(value, str):
        return shortened(value, limit)
    if isinstance(value, dict):
        return {shortened(key, limit): cleaned(item, limit) for key, item in value.items()}
    return [cleaned(item, limit) for item in value] if isinstance(value, list) else value
