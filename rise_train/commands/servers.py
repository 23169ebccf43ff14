"""`rise servers`: what the servers of a file offer, and whether each of them works."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthesis.errors import UserError

if TYPE_CHECKING:
    from synthesis.records import Tool
    from synthesis.servers.mcp_config import ServerConfig, ServersFile

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="What MCP servers offer, and whether they work.")

ServersJson = Annotated[
    Path, typer.Argument(metavar="SERVERS.json", help="mcpServers JSON, as Claude Desktop, Cursor and VS Code use it.")
]


@dataclass(frozen=True)
class Probe:
    """What came of starting one server."""

    server: str
    version: str = ""
    tools: int = 0
    may_run: int = 0
    start_s: float = 0.0
    ping_ms: float = 0.0
    isolation: str = ""
    problem: str = ""
    """Why it does not work, in one sentence; empty when it does."""


@app.command(name="list")
def show(servers: ServersJson) -> None:
    """List the servers and their tools, and which of them may run.

    A tool runs when the server marks it read-only or `rise.allow` names it, and `rise.deny` does not.
    """
    import asyncio

    from synthesis.servers.server_set import load_servers

    asyncio.run(_show(load_servers(servers)))


@app.command()
def probe(servers: ServersJson) -> None:
    """Start each server by itself, list its tools and ping it. Exit status 2 if one fails."""
    import asyncio

    from synthesis.servers.server_set import load_servers

    file = load_servers(servers)
    failed = 0
    for config in file.servers:
        found = asyncio.run(probe_server(file, config))
        failed += bool(found.problem)
        _print_probe(found)
    if failed:
        raise UserError(f"{servers}: {failed} of {len(file.servers)} servers do not work.")


@app.command()
def prepare(servers: ServersJson) -> None:
    """Fetch once what `uvx`, `npx` and the like run, so that they start without network. Exit status 2 if one fails."""
    import asyncio

    from synthesis.servers.prepare import prepare as fetch
    from synthesis.servers.sandbox.packages import fetches
    from synthesis.servers.server_set import load_servers

    file = load_servers(servers)
    chosen = [config for config in file.servers if fetches(config.command)]
    failed = 0
    for config in chosen:
        try:
            typer.echo(f"fetched {asyncio.run(fetch(file, config))}")
        except UserError as error:
            failed += 1
            typer.echo(f"FAILED  {error}")
    if failed:
        raise UserError(f"{servers}: {failed} of {len(chosen)} servers could not be fetched.")
    if not chosen:
        typer.echo("nothing to fetch: no entry starts by uvx, npx or the like")


@app.command()
def select(
    listing: Annotated[
        Path, typer.Argument(metavar="LISTING.json", help="JSON list of servers; see docs/catalogue.md.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON: chosen, dropped with reasons, strata.")],
    count: Annotated[int, typer.Option(min=1, help="How many to choose.")] = 100,
    min_stars: Annotated[int, typer.Option(min=0, help="Fewer leave a server out.")] = 0,
    transport: Annotated[str | None, typer.Option(help="Only `stdio` or only `http`.")] = None,
    need_license: Annotated[bool, typer.Option("--need-license", help="Leave out servers without a license.")] = False,
    allow_keys: Annotated[bool, typer.Option("--allow-keys", help="Keep servers that need a key.")] = False,
    near: Annotated[float, typer.Option(min=0, max=1, help="Cosine from which two names are one server's.")] = 0.8,
) -> None:
    """Choose servers from a big listing: by criteria, one of each name, stratified by tag (RISE, section 3.1)."""
    from synthesis.json_file import write_json
    from synthesis.servers.catalog import Criteria, load
    from synthesis.servers.catalog import select as choose

    if transport not in (None, "stdio", "http"):
        raise UserError(f"--transport: expected stdio or http, not {transport!r}.")
    criteria = Criteria(license=need_license, no_key=not allow_keys, min_stars=min_stars, transport=transport)
    choice = choose(load(listing), count, criteria, near)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, choice.report())
    _print_strata(choice.strata)
    typer.echo(f"{len(choice.chosen)} chosen, {len(choice.dropped)} dropped with a reason each: {output}")


async def probe_server(file: "ServersFile", config: "ServerConfig") -> Probe:
    """Start one server of the file in a sandbox of its own, ping it, end it. A failure is told, not raised."""
    from synthesis.servers.server_set import Servers

    alone = file.model_copy(update={"servers": [config]})
    try:
        async with Servers(alone) as running:
            ping_s = await running.ping(config.name)
            may_run = len(running.tools)
            return Probe(
                config.name,
                version=running.versions[config.name],
                tools=may_run + len(running.refused),
                may_run=may_run,
                start_s=running.start_seconds[config.name],
                ping_ms=1000 * ping_s,
                isolation=running.isolation,
            )
    except UserError as error:
        return Probe(config.name, problem=str(error))


async def _show(file: "ServersFile") -> None:
    from synthesis.servers.server_set import Servers

    async with Servers(file) as running:
        for config in file.servers:
            may_run = [tool for tool in running.tools.values() if tool.server == config.name]
            refused = [tool for tool in running.refused if tool.server == config.name]
            count = f"{len(may_run)} of {len(may_run) + len(refused)} tools may run"
            about = f"state {config.rise.state}; field {config.rise.field or 'none'}"
            typer.echo(f"{config.name} {running.versions[config.name]}: {count}; {about}")
            for tool in [*may_run, *refused]:
                typer.echo(f"  {_consent(tool, config, tool in refused):<11} {tool.full_name}")
            for name, why in running.unusable.items():
                if name.startswith(f"{config.name}: "):
                    typer.echo(f"  unusable    {name.removeprefix(f'{config.name}: ')}: {why}")


def _consent(tool: "Tool", config: "ServerConfig", is_refused: bool) -> str:
    if is_refused:
        return "denied" if tool.name in config.rise.deny else "not allowed"
    return "read-only" if tool.read_only else "allowed"


def _print_probe(found: Probe) -> None:
    if found.problem:
        typer.echo(f"FAILED  {found.problem}")
        return
    typer.echo(
        f"ok      {found.server} {found.version}: {found.may_run} of {found.tools} tools may run; "
        f"started in {found.start_s:.1f} s, ping {found.ping_ms:.0f} ms"
    )
    typer.echo(f"        {found.isolation}")


def _print_strata(strata: dict[str, dict[str, int]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stratum", box=None, padding=(0, 2, 0, 0))
    for column in ("listed", "left", "chosen"):
        table.add_column(column, justify="right")
    for name, counts in strata.items():
        table.add_row(name, *(str(counts[column]) for column in ("listed", "left", "chosen")))
    Console(highlight=False).print(table)
