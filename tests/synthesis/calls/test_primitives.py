"""Primitives: the verdict rules, and collecting from a small world in memory."""

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import POLICIES, TOOLS, FakeAuthor, FakeServers

from synthesis.authors.base import Candidate
from synthesis.calls.candidates import candidate_id
from synthesis.calls.primitives import collect
from synthesis.calls.references import UnresolvedError, resolve, unresolved
from synthesis.calls.verdicts import judge
from synthesis.journal import Journal
from synthesis.records import Primitive, Tool, ToolResult

TOOL = TOOLS["weather__get_forecast"]

FAILURES = [
    "Error: file /data/x.xlsx does not exist",
    "Database error: no such table: people",
    "Document /data/none.docx does not exist",
    "Invalid paragraph index. Document has 3 paragraphs (0-2).",
    "Failed to add heading: no style",
    "# Note Not Found: plans",
    "# Search Failed - unexpected\n\nThe search broke.",
    "Cannot write to /data: it is a folder",
    "Unknown tool: frobnicate",
    "Traceback (most recent call last):",
    "ValueError: bad cell",
    "Sheet Orders not found",
    '{"error": "no presentation loaded"}',
    '{"success": false, "message": "bad unit"}',
    '{"status": "error", "message": "x"}',
    '{"result": "error", "reason": "hash mismatch"}',
    '{"message": "Added slide", "elements_created": [{"type": "title"}, {"type": "image", "error": "no file"}]}',
    '{"results": [{"success": true}, {"success": false, "reason": "kelvin below zero"}]}',
    '{"message": "Failed to read the slide"}',
    '"Error: quoted"',
    "",
    "  \n ",
]
SUCCESSES = [
    "0 errors, 3 warnings",
    "No errors found in formula =SUM(A1:A3)",
    "Commit history:\nCommit: 'a1b2'\nMessage: 'Fix the error in search'\nError: handled",
    "The forecast: cloudy. Error margin 2 degrees",
    "name,city\nErrol,Bern",
    '{"errors": [], "valid": true}',
    '{"error": null, "value": 3}',
    '{"success": true, "count": 0}',
    '{"text": "The payment failed because the card was not found."}',
    '[{"status": "failed over to node 2"}]',
    "Found 2 customers",
    "42",
    "[]",
    "Paragraph added to /data/report.docx",
]


@pytest.mark.parametrize("text", FAILURES)
def test_polite_failures_are_seen(text: str) -> None:
    assert judge(TOOL, ToolResult(text=text))


@pytest.mark.parametrize("text", SUCCESSES)
def test_talk_about_errors_is_no_failure(text: str) -> None:
    assert judge(TOOL, ToolResult(text=text)) == ""


def test_the_protocol_comes_first_and_reasons_quote() -> None:
    assert judge(TOOL, ToolResult(text="all is well", is_error=True)) == "is_error: all is well"
    assert judge(TOOL, ToolResult(text="Error: " + "x" * 500)).startswith("opens_with_error: Error: xxx")
    assert len(judge(TOOL, ToolResult(text="Error: " + "x" * 500))) < 160


def test_output_schema_decides_before_the_text() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = TOOL.model_copy(update={"output_schema": schema})
    assert judge(tool, ToolResult(text="fine", structured={"n": "three"})).startswith("output_schema: ")
    assert judge(tool, ToolResult(text="fine", structured={"n": 3})) == ""


def test_a_servers_own_patterns_count_in_the_whole_text() -> None:
    result = ToolResult(text="ok\nnothing was changed")
    assert judge(TOOL, result) == ""
    assert judge(TOOL, result, ["nothing was (changed|done)"]).startswith("server_rule")


def test_words_that_the_caller_sent_are_no_failure() -> None:
    said = ToolResult(text="Noted: the order was not found")
    assert judge(TOOL, said)
    assert judge(TOOL, said, (), {"note": "the order was not found"}) == ""
    assert judge(TOOL, ToolResult(text="Error: no pad for the blue book"), (), {"note": "the blue book"})
    assert judge(TOOL, ToolResult(text="Error: bad"), (), {"kind": "Error"}), "a single word proves nothing"


def test_references_resolve_at_any_depth() -> None:
    value = {"id": {"$result": 1, "$pattern": r"pad_\d+"}, "deep": [{"$result": 0, "$pattern": r"no (\d+)"}], "n": 1}
    assert resolve(value, ["no 7", "opened pad_12, pad_13"]) == {"id": "pad_12", "deep": ["7"], "n": 1}
    with pytest.raises(UnresolvedError, match="not in the result of call 0"):
        resolve(value, ["nothing", "pad_1"])


def test_a_group_that_takes_no_part_in_the_match_is_no_value() -> None:
    with pytest.raises(UnresolvedError, match="not in the result of call 0"):
        resolve({"$result": 0, "$pattern": r"pad_(\d+)|none"}, ["none"])


def gather(path: Path, servers: FakeServers, author: Any = None) -> Journal[Primitive]:
    journal = Journal(path, Primitive)
    asyncio.run(collect([servers], POLICIES, author or FakeAuthor(), journal, per_tool=12, seed=0))  # type: ignore[arg-type]
    return journal


def test_collect_keeps_accepted_and_rejected(tmp_path: Path) -> None:
    servers = FakeServers()
    journal = gather(tmp_path / "p.jsonl", servers)
    by_reason = {p.reason.split(":")[0]: p for p in journal if p.verdict == "rejected"}
    assert by_reason["opens_with_refusal"].arguments == {"city": "Nowhere"}
    assert by_reason["input_schema"].arguments == {"day": "Friday"}
    assert len(by_reason) == 2
    assert ("weather__get_forecast", {"day": "Friday"}) not in servers.calls, (
        "a call that breaks the schema is not made"
    )
    accepted = [p for p in journal if p.verdict == "ok"]
    assert all(p.deterministic and p.result and not p.reason for p in accepted)
    assert {p.tool for p in accepted} == set(TOOLS)
    assert next(p for p in accepted if p.tool == "weather__get_forecast").server_version == "1.0"


def test_setup_runs_first_feeds_arguments_and_is_a_primitive_itself(tmp_path: Path) -> None:
    journal = gather(tmp_path / "p.jsonl", FakeServers())
    added = [p for p in journal if p.tool == "notes__add_line"]
    assert len(added) == 3
    for primitive in added:
        assert primitive.arguments["pad_id"].startswith("pad_")
        assert primitive.setup[0]["feeds"] == {"pad_id": r"pad_\d+"}
        assert unresolved(primitive)["pad_id"] == {"$result": 0, "$pattern": r"pad_\d+"}
    opening = Candidate(tool="notes__open_pad", arguments={"title": "Shopping"}, coverage="required")
    assert candidate_id(opening, TOOLS) in journal


def test_an_author_is_asked_by_as_many_threads_as_it_has_workers_and_told_the_servers_other_tools(
    tmp_path: Path,
) -> None:
    together = threading.Barrier(len(TOOLS))
    told: dict[str, list[str]] = {}

    class Slow(FakeAuthor):
        workers = len(TOOLS)

        def candidates(self, tool: Tool, count: int, seed: int, siblings: Sequence[Tool] = ()) -> list[Candidate]:
            together.wait(30)
            told[tool.full_name] = [other.full_name for other in siblings]
            return super().candidates(tool, count, seed, siblings)

    assert len(gather(tmp_path / "p.jsonl", FakeServers(), Slow())) > len(TOOLS)
    assert told["sums__add"] == ["sums__multiply"]
    assert told["notes__add_line"] == ["notes__count_lines", "notes__open_pad"]


def test_results_that_change_are_marked(tmp_path: Path) -> None:
    class Clock(FakeServers):
        def get_alerts(self, city: str) -> ToolResult:
            return ToolResult(text=f"It is tick {len(self.calls)} in {city}")

    journal = gather(tmp_path / "p.jsonl", Clock())
    alerts = [p for p in journal if p.tool == "weather__get_alerts"]
    assert len(alerts) == 4
    assert all(p.verdict == "ok" and not p.deterministic for p in alerts)
    opened = [p for p in journal if p.tool == "notes__open_pad"]
    assert all(p.deterministic for p in opened), "a clean start gives the same pad again"


def test_a_failing_setup_rejects_with_its_reason(tmp_path: Path) -> None:
    servers = FakeServers({"notes__open_pad": ToolResult(text="Error: disk full")})
    journal = gather(tmp_path / "p.jsonl", servers)
    reasons = {p.reason for p in journal if p.tool == "notes__add_line"}
    assert reasons == {"setup: call 0, notes__open_pad: opens_with_error: Error: disk full"}


def test_resume_calls_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    gather(path, FakeServers()).close()
    lines = path.read_bytes().splitlines(keepends=True)
    servers = FakeServers()
    gather(path, servers).close()
    assert servers.calls == []
    for kept in (0, 1, len(lines) // 2, len(lines) - 1):
        path.write_bytes(b"".join(lines[:kept]) + b'{"half')
        gather(path, FakeServers()).close()
        assert path.read_bytes() == b"".join(lines), kept


def test_records_hold_what_others_rely_on(tmp_path: Path) -> None:
    gather(tmp_path / "p.jsonl", FakeServers()).close()
    row = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    assert {"id", "server", "tool", "arguments", "result", "verdict"} <= set(row)


def test_a_setup_that_names_no_tool_is_rejected_with_the_name(tmp_path: Path) -> None:
    class Lost(FakeAuthor):
        def candidates(self, tool: Tool, count: int, seed: int, siblings: Sequence[Tool] = ()) -> list[Candidate]:
            setup = [{"tool": "notes__vanish", "arguments": {}}]
            return [Candidate(tool="weather__get_alerts", arguments={"city": "Bern"}, setup=setup, coverage="all")]

    journal = gather(tmp_path / "p.jsonl", FakeServers(), Lost())
    assert [p.reason for p in journal] == ["setup: call 0 names 'notes__vanish', which may not run or does not exist"]


def test_no_tool_is_called_with_the_sign_for_a_secret(tmp_path: Path) -> None:
    """A server shows its key, which is hidden from us: what would be taken from there is no argument."""

    class Author(FakeAuthor):
        def candidates(self, tool: Tool, count: int, seed: int, siblings: Sequence[Tool] = ()) -> list[Candidate]:
            if tool.full_name != "weather__get_alerts":
                return []
            shown = [{"tool": "weather__get_forecast", "arguments": {"city": "Bern"}}]
            reference = {"$result": 0, "$pattern": r"<\w+>"}
            hidden = [{"tool": "weather__get_alerts", "arguments": {"city": "<secret>"}}]
            return [
                Candidate(tool=tool.full_name, arguments={"city": "key <secret>"}, coverage="all"),
                Candidate(tool=tool.full_name, arguments={"city": reference}, setup=shown, coverage="all"),
                Candidate(tool=tool.full_name, arguments={"city": "Rome"}, setup=hidden, coverage="all"),
            ]

    servers = FakeServers({"weather__get_forecast": ToolResult(text="Your key is <secret>")})
    with Journal(tmp_path / "primitives.jsonl", Primitive) as journal:
        asyncio.run(collect([servers], POLICIES, Author(), journal, per_tool=3, seed=0))
        reasons = {primitive.reason for primitive in journal if primitive.tool == "weather__get_alerts"}
    assert len(reasons) == 2
    assert all("an argument holds the sign that stands for a secret" in reason for reason in reasons)
    assert not [call for call in servers.calls if "<secret>" in json.dumps(call)]
