"""Values for a parameter that nobody described in a phrasebook: from its schema, its description and its name.

Best first: the schema's examples and enumeration, what the description quotes or lists, then what the parameter's name
stands for. Paths are those of files that the sandbox really has. No server's name appears here.
"""

import posixpath
import re
from dataclasses import dataclass

from jsonschema.exceptions import SchemaError

from synthesis.records import Json, Tool
from synthesis.schemas import Schema, items, properties, required, resolved, type_of, validator
from synthesis.servers.sandbox.workspace import LOGICAL
from synthesis.text.equality import canonical
from synthesis.text.lexicon import lexicon
from synthesis.text.saying import spaced

DEEPEST, MOST = 4, 12
"""How deep lists and objects are filled, and how many of them are made."""
_NUMBERS = [3, 5, 2, 10, 1, 20, 7, 12, 4, 50, 15, 8, 100, 30, 25, 250, 0, 1000]
_DECIMALS = [2.5, 12, 0.5, 40, 3.75, 100, 7, 1.2, 18, 99.5, 0.1, 1, 0]
_PLACES = {"start", "begin", "line", "page", "row", "offset", "index", "position", "depth", "level", "head", "tail"}
"""Numbers that count from one, and had better stay small."""
_QUOTED = re.compile("['\"`\u2018\u201c]([^'\"`\u2018\u2019\u201c\u201d\n]{1,40})['\"`\u2019\u201d]")
_EXAMPLES = re.compile(r"e\.g\.|example|such as|like|one of|either|format|如|例")
_LISTED = re.compile(r"^[ \t]*([A-Za-z][\w-]{1,30})[ \t]+[\u2014\u2013-][ \t]", re.MULTILINE)
_ALLOWED = re.compile(r"(?i)(?:allowed|supported|available|possible|valid) (\w+?)s?: ((?:[\w.-]+, ){1,40}[\w.-]+)")
_AFTERWARDS = re.compile(r"\n\s*\n|\n\s*(?:Examples?|Returns?|Raises|Notes?|Supported)\b")
_ENDINGS = {
    "media image picture photo icon": (".png", ".jpg", ".gif"),
    "pdf": (".pdf",),
    "workbook spreadsheet excel xlsx": (".xlsx",),
    "docx document word": (".docx",),
    "presentation slides deck pptx": (".pptx",),
}
_TEXT = (".txt", ".csv", ".md", ".json", ".pgn", ".py", ".toml", ".yaml", ".html")
_MAKING = {"create", "write", "save", "make", "new", "export", "generate", "touch"}
_ENDS = {"source", "src", "from", "destination", "dest", "target", "to"}
_FILES = {"file", "files", "path", "directory", "folder", "document"}
_GOALS = {"destination", "target", "output", "dest", "to"}
_NEW_FILES = ["notes.txt", "summary.txt", "todo.txt", "plan.txt"]
_NEW_FOLDERS = ["archive", "drafts", "backup", "photos"]


@dataclass(frozen=True)
class World:
    """What a tool is about, and which files there are to work on."""

    tool: str = ""
    """The tool's name in words."""
    about: str = ""
    """The tool's description."""
    files: tuple[str, ...] = ()
    """Logical paths of the files in the sandbox."""


def parameter_docs(tool: Tool) -> dict[str, str]:
    """Return what is said of each parameter: in its schema, and under its name in the tool's description.

    Many servers document parameters in one docstring: `name: text` at the start of a line, up to the next such line.
    """
    found = {name: str(schema.get("description", "")) for name, schema in properties(tool.input_schema).items()}
    names = "|".join(map(re.escape, found)) or "(?!)"
    parts = re.split(rf"(?m)^[ \t]*[-*`]*({names})`?(?: \([^)\n]*\))?:", tool.description)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found[name] = f"{found[name]} {_AFTERWARDS.split(text)[0]}".strip()
    return found


def samples(name: str, schema: Schema, root: Schema, world: World | None = None, depth: int = 0) -> list[Json]:
    """List plausible values of a parameter that its schema accepts, best first; empty if none was found.

    `root` is the tool's whole schema, in which references point.
    """
    schema = resolved(schema, root)
    try:
        judge = validator(schema, root, formats=True)
        raw = _raw(name, schema, root, world or World(), depth)
        valid = [value for value in raw if judge.is_valid(value)]
    except (SchemaError, re.error, RecursionError):
        return []
    return list({canonical(value): value for value in valid}.values())


def _raw(name: str, schema: Schema, root: Schema, world: World, depth: int) -> list[Json]:
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return [value for value in schema["enum"] if value is not None]
    given = list(schema.get("examples", []))
    match type_of(schema):
        case "boolean":
            return [True, False]
        case "integer":
            return [*given, *_near(schema), *_small(name), *_NUMBERS]
        case "number":
            return [*given, *_near(schema), *_small(name), *_DECIMALS]
        case "array":
            return given + _lists(name, schema, root, world, depth)
        case "object":
            return given + _objects(schema, root, world, depth)
        case _:
            return given + _strings(name, schema, world)


def _near(schema: Schema) -> list[Json]:
    """Values at the allowed limits, for where the ordinary ones fall outside."""
    low, high = (
        schema.get("minimum", schema.get("exclusiveMinimum")),
        schema.get("maximum", schema.get("exclusiveMaximum")),
    )
    found = [low, low + 1] if isinstance(low, int | float) else []
    return [*found, high - 1, high] if isinstance(high, int | float) else found


def _small(name: str) -> list[Json]:
    return [1, 2] if _PLACES & set(spaced(name).split()) else []


def _lists(name: str, schema: Schema, root: Schema, world: World, depth: int) -> list[Json]:
    if depth >= DEEPEST:
        return []
    single = name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s")
    said = {"description": schema.get("description", "")}
    pools = [samples(single, {**said, **part}, root, world, depth + 1) for part in items(schema)]
    if len(pools) > 1:
        count = min(MOST, max(map(len, pools))) if all(pools) else 0
        return [[pool[(i + j) % len(pool)] for j, pool in enumerate(pools)] for i in range(count)]
    (parts,) = pools
    least = max(1, int(schema.get("minItems", 1)))
    sizes = [size for size in (least, least + 1, least + 2) if size <= len(parts)]
    return [parts[start : start + size] for size in sizes for start in range(len(parts) - size + 1)][:MOST]


def _objects(schema: Schema, root: Schema, world: World, depth: int) -> list[Json]:
    """Objects with their required members; members of one kind get different values."""
    members = properties(schema)
    if depth >= DEEPEST or not members:
        return []
    names = required(schema) or list(members)[:1]
    pools = {key: samples(key, members.get(key, {}), root, world, depth + 1) for key in names}
    if not all(pools.values()):
        return []
    count = min(MOST, max(map(len, pools.values())))
    return [{key: pool[(i + j) % len(pool)] for j, (key, pool) in enumerate(pools.items())} for i in range(count)]


def _strings(name: str, schema: Schema, world: World) -> list[Json]:
    """Values for a string: those that its description shows, its default, then by the words of its name or format."""
    description = str(schema.get("description", ""))
    shown: list[Json] = list(_shown(name, description, world))
    default = schema.get("default")
    shown += [default] if isinstance(default, str) and default.strip() else []
    concept = _concept(name, str(schema.get("format", "")), world)
    if concept in ("path", "folder"):
        return [value for value in shown if str(value).startswith(LOGICAL)] + _paths(name, concept, world)
    return shown if shown and concept == "word" else [*shown, *lexicon().values[concept]]


def _shown(name: str, description: str, world: World) -> list[str]:
    """What a description quotes as examples or lists as choices."""
    quoted: list[str] = _QUOTED.findall(description)
    if len(quoted) < 2 and not _EXAMPLES.search(description):
        quoted = []
    listed: list[str] = _LISTED.findall(description)
    allowed = [words for noun, words in _ALLOWED.findall(world.about) if noun == spaced(name)]
    found = [value for value in quoted if value.strip()] + (listed if len(listed) > 1 else [])
    return found + ", ".join(allowed).split(", ") if allowed else found


def _concept(name: str, form: str, world: World) -> str:
    """The lexicon's list that the parameter's name or format points to, by its last telling word."""
    if name in _ENDS and _FILES & set(world.tool.split()):
        return "path"
    lex = lexicon()
    formats = {"time": "clock", "idn-email": "email", "uri": "url", "iri": "url", "uri-reference": "url"}
    formats |= {"idn-hostname": "hostname"}
    words = [word.rstrip("0123456789") or word for word in reversed(spaced(name).split())]
    known = [lex.parameter_words.get(word, word if word in lex.values else "") for word in words]
    named = formats.get(form, form if form in lex.values else "")
    return next((concept for concept in [named, *known] if concept), "word")


def _paths(name: str, concept: str, world: World) -> list[Json]:
    """Paths to read: files and folders that exist; to write: new ones beside them."""
    words, purpose = set(spaced(name).split()), world.tool.split()
    folders = sorted({LOGICAL, *(posixpath.dirname(path) for path in world.files)})
    for_folders = concept == "folder" or bool({"directory", "folder", "dir", "tree"} & {*words, *purpose})
    if words & _GOALS or (_MAKING & set(purpose[:1]) and "source" not in words):
        names = _NEW_FOLDERS if for_folders else _NEW_FILES
        return [posixpath.join(LOGICAL, new) for new in names]
    if not world.files:
        return list(lexicon().values[concept])
    if for_folders:
        return list(folders)
    telling = f"{name} {world.tool}".casefold()
    endings = next((e for cues, e in _ENDINGS.items() if any(cue in telling for cue in cues.split())), _TEXT)
    fitting = [path for path in world.files if path.endswith(endings)] or list(world.files)
    return [*fitting, *folders] if {"search", "find", "info"} & set(purpose) else list(fitting)
