"""The phrasebooks of git, sqlite, time, units, calculator and chess, and the sandbox files that they speak of.

The servers are the real ones, started once.
"""

import asyncio
import os
import re
import runpy
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest

from synthesis.authors.offline.author import OfflineAuthor
from synthesis.authors.offline.phrasebook import FOLDER, Phrasebook, load_phrasebook
from synthesis.calls.references import has_reference, resolve
from synthesis.calls.verdicts import judge
from synthesis.records import Json, Tool
from synthesis.servers.server_set import Servers, load_servers

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny"
SERVERS = ("git", "sqlite", "time", "units", "calculator", "chess")
BROKEN = {"units__convert_batch", "chess__find_position_in_pgn"}
"""Left out: the first wants nested objects, the second breaks its own output schema whenever it finds something."""
FEW = {
    "git__git_status", "git__git_reset", "sqlite__list_tables", "chess__new_game", "chess__get_turn",
    "chess__get_valid_moves", "chess__get_board_visualization",
}  # fmt: skip
"""Tools whose parameters leave no room for twelve argument sets."""


@pytest.fixture(scope="module")
def outcome() -> tuple[dict[str, Tool], list[str]]:
    """The six servers' tools, and what went wrong in real calls of a few candidates for each."""
    file = load_servers(RECIPE / "mcp.json")
    chosen = [server for server in file.servers if server.name in SERVERS]
    missing = [server.command for server in chosen if not Path(server.command or "").exists()]
    if missing:
        pytest.skip(f"the servers are not installed: {missing[0]}")

    async def main() -> tuple[dict[str, Tool], list[str]]:
        async with Servers(file.model_copy(update={"servers": chosen})) as servers:
            failures = [reason for name in servers.tools if name not in BROKEN for reason in await _try(servers, name)]
            return servers.tools, failures

    return asyncio.run(main())


async def _try(servers: Servers, name: str) -> list[str]:
    """Call a tool with some of its author's candidates; chess with one and without a restart, which takes a second."""
    tool = servers.tools[name]
    failures = []
    for candidate in OfflineAuthor().candidates(tool, 1 if tool.server == "chess" else 3, seed=11):
        if tool.server != "chess":
            await servers.reset([tool.server])
        texts: list[str] = []
        for call in [*candidate.setup, {"tool": name, "arguments": candidate.arguments}]:
            result = await servers.call(call["tool"], resolve(call["arguments"], texts))
            texts.append(result.text[:200])
            if reason := judge(servers.tools[call["tool"]], result):
                failures.append(f"{call}: {reason}")
    return failures


def _book(server: str) -> Phrasebook:
    return load_phrasebook(FOLDER / f"{server}.yaml")


def test_every_tool_is_covered_and_every_tool_named_exists(outcome):
    tools, _ = outcome
    named = {f"{server}__{tool}" for server in SERVERS for tool in _book(server).tools}
    assert named == set(tools) - BROKEN
    assert len(named) == 41


def test_candidates_really_succeed(outcome):
    _, failures = outcome
    assert failures == []


def test_arguments_are_valid_by_the_schemas_and_various(outcome):
    tools, _ = outcome
    author = OfflineAuthor()
    for name in sorted(set(tools) - BROKEN):
        validator = jsonschema.Draft202012Validator(tools[name].input_schema)
        candidates = author.candidates(tools[name], 40, seed=2)
        assert len(candidates) >= (1 if name in FEW else 12), name
        for candidate in candidates:
            if not has_reference(candidate.arguments):
                assert list(validator.iter_errors(candidate.arguments)) == [], (name, candidate.arguments)


@pytest.mark.parametrize("server", SERVERS)
def test_there_are_ways_to_say_everything(server):
    for name, entry in _book(server).tools.items():
        assert len(set(entry.heads)) >= 5, name
        spoken = {parameter for case, _ in entry.parts() for parameter in case} | set(entry.optional)
        assert spoken == set(entry.phrases), name
        for parameter, ways in entry.phrases.items():
            lists = ways.values() if isinstance(ways, dict) else [ways]
            assert all(len(set(way)) >= 3 for way in lists), (name, parameter)


@pytest.mark.parametrize("server", SERVERS)
def test_what_comes_from_a_result_is_referred_to(server):
    for name, entry in _book(server).tools.items():
        hidden = {p for case, _ in entry.parts() for p, value in case.items() if _from_result(value)}
        assert hidden == set(entry.obscured), name
        for parameter in hidden:
            assert any(f"{{{parameter}}}" not in head for head in entry.heads), (name, parameter)


def _from_result(value: Json) -> bool:
    return isinstance(value, dict) and "result" in value


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders in each of which the setup script has run."""
    folders = [tmp_path_factory.mktemp("sandbox") for _ in range(2)]
    for folder in folders:
        subprocess.run(
            ["sh", str(RECIPE / "sandbox_setup.sh")], cwd=folder, env={"PATH": os.environ["PATH"]}, check=True
        )
    return folders


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.rstrip()


def test_the_setup_script_builds_the_same_repositories_each_time(sandboxes):
    seen = [{repo.name: _git(repo, "for-each-ref") for repo in sorted(folder.iterdir())} for folder in sandboxes]
    assert seen[0] == seen[1]
    assert list(seen[0]) == ["handbook", "kitchen", "repo", "scripts", "website"]
    repo = sandboxes[0] / "repo"
    assert _git(repo, "status", "--short").splitlines() == [" M README.md", "?? notes.txt"]
    assert _git(repo, "branch", "--format=%(refname:short)").split() == ["feature/search", "fix/typo", "main"]
    assert _git(repo, "tag") == "v1.0"
    assert _git(repo, "ls-files").split() == ["README.md", "docs/guide.md", "src/app.py", "src/search.py"]


def test_no_commit_is_on_a_day_that_requests_name(sandboxes):
    """Git completes a bare date with the time of day at which it is asked, so a commit's own day would not repeat."""
    days = {day for repo in sandboxes[0].iterdir() for day in _git(repo, "log", "--all", "--format=%cs").split()}
    pools = _book("git").pools
    assert days.isdisjoint([*pools["start_day"], *pools["end_day"]])
    assert all(re.fullmatch(r"2026-\d\d-\d[13579]", day) for day in days)


def test_the_database_is_what_its_script_says():
    script = runpy.run_path(str(RECIPE / "sandbox_shop.py"))
    with (
        closing(sqlite3.connect(RECIPE / "sandbox" / "shop.db")) as shipped,
        closing(sqlite3.connect(":memory:")) as made,
    ):
        made.executescript(script["SCHEMA"])
        for table, rows in script["tables"]().items():
            made.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        assert list(shipped.iterdump()) == list(made.iterdump())
