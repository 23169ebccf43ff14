"""Servers that nobody wrote a phrasebook for: values and words from the schema and the description alone."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from synthesis.authors.offline.author import OfflineAuthor
from synthesis.authors.offline.fallback import heads, make_book
from synthesis.authors.offline.guesses import World, parameter_docs, samples
from synthesis.records import Json, Step, Tool, Trajectory
from synthesis.requests.critical import ground

FILES = ["/data/games/chess.pgn", "/data/logo.png", "/data/notes.csv", "/data/sales.xlsx"]
TEXT: dict[str, Json] = {"type": "string"}


def tool(
    name: str, description: str, properties: dict[str, Any], required: list[str] | None = None, server: str = "alien"
) -> Tool:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
    }
    return Tool(server=server, name=name, description=description, input_schema=schema)


READ = tool("read_media_file", "Read a file and return it as base64. Only images.", {"path": TEXT})
TREE = tool("directory_tree", "Get a tree view of files and directories as JSON.", {"path": TEXT})
WRITE = tool("write_file", "Create a new file or overwrite one. Use with caution.", {"path": TEXT, "content": TEXT})
MOVE = tool("move_file", "Move or rename files.", {"source": TEXT, "destination": TEXT})
FACTOR = tool("alien_factor", "Factor an expression.", {"expr": {**TEXT, "description": "String expression"}})
CONVERT = tool(
    "alien_convert",
    "Convert units.\n\n  amount: the number, e.g. '7.5'.\n  mode:\n    exact - no rounding\n    rough - rounded\n"
    "  Example: alien_convert(amount='7.5', mode='rough')\n  Supported units: yard, acre",
    {"amount": TEXT, "mode": TEXT, "unit": TEXT},
    ["amount"],
)
FOREIGN = tool("alien_solve", "解方程或方程组。\n equation: 方程", {"equation": TEXT})
EDGES = tool(
    "link_nodes",
    "Link nodes.",
    {
        "links": {
            "type": "array",
            "items": {"type": "object", "properties": {"from": TEXT, "to": TEXT}, "required": ["from", "to"]},
        }
    },
)
TOOLS = [READ, TREE, WRITE, MOVE, FACTOR, CONVERT, FOREIGN, EDGES]


def values(one: Tool, parameter: str) -> list[Json]:
    return make_book(one, FILES).pools[parameter]


def test_paths_are_of_files_that_are_there_and_new_ones_where_something_is_made() -> None:
    assert values(READ, "path") == ["/data/logo.png"]
    assert values(TREE, "path") == ["/data", "/data/games"]
    assert not set(values(WRITE, "path")) & set(FILES)
    assert set(values(MOVE, "source")) == {"/data/games/chess.pgn", "/data/notes.csv"}
    assert not set(values(MOVE, "destination")) & set(FILES)


def test_the_description_gives_examples_choices_and_whole_calls() -> None:
    assert parameter_docs(CONVERT)["amount"].startswith("the number, e.g. '7.5'")
    assert values(CONVERT, "amount")[0] == "7.5"
    assert values(CONVERT, "mode")[:2] == ["exact", "rough"]
    assert values(CONVERT, "unit")[:2] == ["yard", "acre"]
    assert {"amount": "7.5", "mode": "rough"} in make_book(CONVERT).tools["alien_convert"].cases


def test_members_of_one_kind_differ() -> None:
    for links in values(EDGES, "links"):
        assert all(link["from"] != link["to"] for link in links)


def test_numbers_that_count_from_one_stay_small() -> None:
    assert samples("start_line", {"type": "integer"}, {}, World())[:2] == [1, 2]
    assert samples("price", {"type": "integer"}, {}, World())[0] == 3


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (READ, "read the media file"),
        (READ, "read a file"),
        (WRITE, "create a new file"),
        (MOVE, "move the file"),
        (FACTOR, "factor the expression {expr}"),
        (FOREIGN, "solve {equation}"),
        (tool("alien_sin", "Sine.", {"expr": TEXT}), "work out the sine of {expr}"),
        (TREE, "get a tree view of files and directories"),
    ],
)
def test_heads_read_like_orders(one: Tool, expected: str) -> None:
    found = heads(one, one.input_schema["required"])
    assert any(head.startswith(expected) for head in found), found
    assert all(head.isascii() and len(head.split()) <= 12 for head in found)


@pytest.mark.parametrize("one", TOOLS, ids=lambda one: one.name)
def test_calls_are_valid_and_requests_say_every_value(one: Tool) -> None:
    author = OfflineAuthor(files=FILES)
    found = author.candidates(one, 12, seed=0)
    assert found
    assert all(Draft202012Validator(one.input_schema).is_valid(c.arguments) for c in found)
    for candidate in found:
        step = Step(turn=0, tool=one.full_name, arguments=candidate.arguments, result="ok", primitive_id="p")
        trajectory = Trajectory(id=str(candidate.arguments), pattern="single", steps=[step])
        draft = author.compose(trajectory, {one.full_name: one}, 0, seed=0)
        assert all(p.by_author and p.by_rule for p in ground(trajectory, draft, {one.full_name: one})), draft.request


def test_every_optional_parameter_has_a_call_of_its_own() -> None:
    optional = {name: {"type": "integer"} for name in ("width", "height", "depth")}
    one = tool("make_box", "Make a box.", {"title": TEXT, **optional}, ["title"])
    found = OfflineAuthor().candidates(one, 16, seed=0)
    given = {frozenset(set(c.arguments) - {"title"}) for c in found}
    assert given >= {frozenset(), frozenset(optional), *(frozenset({name}) for name in optional)}
