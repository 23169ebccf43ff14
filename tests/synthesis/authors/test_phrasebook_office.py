"""The phrasebooks of excel, word and powerpoint, and the sandbox files that they speak of.

The servers are the real ones, started once.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import jsonschema
import pytest

from synthesis.authors.base import Candidate
from synthesis.authors.offline.author import OfflineAuthor
from synthesis.authors.offline.phrasebook import FOLDER, SLOT, Phrasebook, load_phrasebook
from synthesis.calls.references import fill, has_reference
from synthesis.calls.verdicts import judge
from synthesis.records import Json, Tool
from synthesis.servers.server_set import Servers, load_servers

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes" / "tiny"
SERVERS = ("excel", "word", "powerpoint")
BROKEN = {
    "excel": {"import_workbook", "read_vba"},
    "word": {"convert_to_pdf", "replace_block_between_manual_anchors"},
    "powerpoint": {
        "add_connector", "apply_slide_template", "auto_generate_presentation", "create_presentation_from_templates",
        "create_slide_from_template", "manage_fonts", "manage_slide_transitions",
    },
}  # fmt: skip
"""Left out: they need base64, macros, LibreOffice or a font file; fail whatever they are given; or do nothing."""
RESULT_CHARS = 200


@pytest.fixture(scope="module")
def outcome() -> tuple[dict[str, Tool], list[str]]:
    """The three servers' tools, and what went wrong in a real call of one candidate for each."""
    file = load_servers(RECIPE / "mcp.json")
    chosen = [server for server in file.servers if server.name in SERVERS]
    missing = [server.command for server in chosen if not Path(server.command or "").exists()]
    if missing:
        pytest.skip(f"the servers are not installed: {missing[0]}")

    async def main() -> tuple[dict[str, Tool], list[str]]:
        async with Servers(file.model_copy(update={"servers": chosen, "setup": None})) as servers:
            named = [name for name, tool in servers.tools.items() if tool.name not in BROKEN[tool.server]]
            author = OfflineAuthor()
            return servers.tools, [reason for name in named if (reason := await _try(servers, author, name))]

    return asyncio.run(main())


async def _try(servers: Servers, author: OfflineAuthor, name: str) -> str:
    """Why the tool's first candidate fails, or ""; presentations pile up in memory, for a restart takes a second."""
    tool = servers.tools[name]
    candidate = author.candidates(tool, 1, seed=5)[0]
    if tool.server != "powerpoint":
        await servers.reset([tool.server])
    texts: list[str] = []
    for call in [*candidate.setup, {"tool": name, "arguments": candidate.arguments}]:
        arguments = fill(servers.tools[call["tool"]], call["arguments"], texts)
        result = await servers.call(call["tool"], arguments)
        texts.append(result.text[:RESULT_CHARS])
        if reason := judge(servers.tools[call["tool"]], result):
            return f"{call['tool']} {arguments}: {reason}"
    return ""


def _books() -> Iterator[tuple[str, Phrasebook]]:
    return ((server, load_phrasebook(FOLDER / f"{server}.yaml")) for server in SERVERS)


def test_every_tool_is_covered_and_every_tool_named_exists(outcome):
    tools, _ = outcome
    for server, book in _books():
        offered = {tool.name for tool in tools.values() if tool.server == server}
        assert set(book.tools) == offered - BROKEN[server]


def test_candidates_really_succeed(outcome):
    _, failures = outcome
    assert failures == []


def test_arguments_are_valid_by_the_schemas(outcome):
    tools, _ = outcome
    author, checked = OfflineAuthor(), 0
    for name, tool in tools.items():
        if tool.name in BROKEN[tool.server]:
            continue
        for candidate in author.candidates(tool, 30, seed=2):
            for called, arguments in _calls(name, candidate):
                properties = tools[called].input_schema["properties"]
                assert set(arguments) <= set(properties), (called, arguments)
                validator = jsonschema.Draft202012Validator(tools[called].input_schema)
                if not has_reference(arguments):
                    assert list(validator.iter_errors(arguments)) == [], (called, arguments)
                    checked += 1
    assert checked > 1500


def _calls(name: str, candidate: Candidate) -> list[tuple[str, dict[str, Json]]]:
    return [*((call["tool"], call["arguments"]) for call in candidate.setup), (name, candidate.arguments)]


def test_most_tools_offer_twelve_argument_sets(outcome):
    tools, _ = outcome
    author = OfflineAuthor()
    offered = [tool for tool in tools.values() if tool.name not in BROKEN[tool.server]]
    rich = [tool for tool in offered if len(author.candidates(tool, 12, seed=2)) == 12]
    assert len(offered) == 126
    assert len(rich) >= 100


@pytest.mark.parametrize("server", SERVERS)
def test_there_are_ways_to_say_everything(server):
    book = load_phrasebook(FOLDER / f"{server}.yaml")
    for name, entry in book.tools.items():
        assert len(set(entry.heads)) >= 5, name
        given = {parameter for case, _ in entry.parts() for parameter in case} | set(entry.optional)
        assert given == set(entry.phrases), name
        for parameter, ways in entry.phrases.items():
            lists = ways.values() if isinstance(ways, dict) else [ways]
            assert all(len(set(way)) >= 3 for way in lists), (name, parameter)
            assert all(entry.ways(parameter, value) for value in book.values(name, parameter)), (name, parameter)


@pytest.mark.parametrize("server", SERVERS)
def test_what_comes_from_a_result_is_referred_to(server):
    for name, entry in load_phrasebook(FOLDER / f"{server}.yaml").tools.items():
        hidden = {p for case, _ in entry.parts() for p, value in case.items() if _from_result(value)}
        assert hidden == set(entry.obscured), name
        for case, _ in entry.parts():
            said = {parameter for parameter, value in case.items() if not _from_result(value)}
            fitting = [head for head in entry.heads if set(SLOT.findall(head)) <= said]
            assert len(fitting) >= 2, (name, case)


def _from_result(value: Json) -> bool:
    return isinstance(value, dict) and "result" in value


@pytest.mark.parametrize(("environment", "kinds"), [("mcp2", ["xlsx", "docx"]), ("mcp1", ["pptx"])])
def test_the_script_makes_the_files_that_are_shipped(tmp_path, environment, kinds):
    python = ROOT / ".servers" / environment / "bin" / "python"
    if not python.exists():
        pytest.skip("the servers are not installed")
    script = tmp_path / "sandbox_office.py"
    script.write_bytes((RECIPE / "sandbox_office.py").read_bytes())
    subprocess.run([python, script, *kinds], check=True)
    made = sorted((tmp_path / "sandbox").iterdir())
    assert {path.suffix[1:] for path in made} >= set(kinds)
    for path in made:
        assert path.read_bytes() == (RECIPE / "sandbox" / path.name).read_bytes(), path.name


def test_the_files_are_small():
    sizes = [path.stat().st_size for path in islice((RECIPE / "sandbox").glob("*.*x"), 20)]
    assert len(sizes) == 8
    assert max(sizes) < 40_000
