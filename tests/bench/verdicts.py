"""How well the verdict rules tell failed calls from successful ones, on servers that they were not written on.

    python tests/bench/verdicts.py
    python tests/bench/verdicts.py --servers SERVERS.json

`tests/synthesis/verdict_calls.yaml` holds provoked calls, each labelled by hand before its answer was seen (`fails`:
the server does not do what the call asks), and the answers. Noted afterwards: `silent` failures, whose answer reads
like a success, so that no rule on the text can see them; and that four calls of treesitter failed which were meant to
succeed, for a grammar or a file was not there. Answers without any text say neither, and do not count.

The first command judges the recorded answers; the second asks those of the servers again that SERVERS.json starts
under the same names. Rules may be mended on servers with `held_out: false` only.
"""

import argparse
import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from synthesis.calls.verdicts import judge
from synthesis.records import Tool, ToolResult
from synthesis.servers.server_set import Servers, load_servers

FIXTURE = Path(__file__).parents[1] / "synthesis" / "verdict_calls.yaml"
TOOL = Tool(server="any", name="any", input_schema={"type": "object"})
LONGEST = 1500
"""Characters kept of an answer; the calls are chosen to give less."""

Row = dict[str, Any]


async def record(groups: list[Row], servers_file: Path) -> None:
    """Make every call of the servers that the file has, in order, and keep what came back."""
    async with Servers(load_servers(servers_file)) as servers:
        running = {tool.server for tool in servers.tools.values()}
        for group in groups:
            for row in group["calls"] if group["server"] in running else ():
                name = TOOL.model_copy(update={"server": group["server"], "name": row["tool"]}).full_name
                if name in servers.tools:
                    answer = await servers.call(name, row["arguments"])
                    row |= {"is_error": answer.is_error, "text": answer.text[:LONGEST]}


def failure(row: Row) -> str:
    """Why the rules hold the answer for a failure; an empty string where they do not."""
    return judge(TOOL, ToolResult(text=row["text"], is_error=row["is_error"]), (), row["arguments"])


def score(groups: Iterable[Row], silent: bool) -> tuple[float, float, int, int]:
    """Recall and precision; failures and calls. Failures that the answer does not show count only with `silent`."""
    rows = [row for group in groups for row in group["calls"] if row["text"].strip()]
    rows = [row for row in rows if silent or not row.get("silent")]
    found = sum(row["fails"] and bool(failure(row)) for row in rows)
    failed, said = sum(row["fails"] for row in rows), sum(bool(failure(row)) for row in rows)
    return found / failed, found / said, failed, len(rows)


def main() -> None:
    """Print recall and precision, for the servers that rules were mended on and for those held out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=Path, help="an mcpServers file, to record the answers again")
    options = parser.parse_args()
    groups: list[Row] = yaml.safe_load(FIXTURE.read_text(encoding="utf-8"))
    if options.servers:
        asyncio.run(record(groups, options.servers))
        FIXTURE.write_text(yaml.safe_dump(groups, allow_unicode=True, sort_keys=False, width=120), encoding="utf-8")
    for group in groups:
        for row in group["calls"]:
            reason = failure(row)
            if row["text"].strip() and row["fails"] != bool(reason):
                kind = "silent" if row.get("silent") else "missed" if row["fails"] else "wrong"
                print(
                    f"{kind}: {group['server']} {row['tool']} {row['arguments']}\n    {reason or row['text'][:100]!r}"
                )
    for held_out in (False, True):
        for silent in (False, True):
            part = [group for group in groups if group["held_out"] == held_out]
            recall, precision, failed, calls = score(part, silent)
            name = ("held out" if held_out else "mended on") + (", silent ones too" if silent else "")
            print(f"{name:27} {calls:3} calls, {failed:3} failures: recall {recall:.3f}, precision {precision:.3f}")


if __name__ == "__main__":
    main()
